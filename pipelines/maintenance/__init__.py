"""What `lrm verify`, `compact`, `remove` and `retry` do to a dataset."""
