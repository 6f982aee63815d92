"""The HTML report about a dataset: objects listed, dropped, failed and kept, with pictures."""
