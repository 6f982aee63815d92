"""The commands that maintain a dataset: `lrm verify`, `compact`, `remove` and `retry`."""
