"""Objects of a dataset by their ids, their state and their measurements."""
