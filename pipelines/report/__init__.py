"""One HTML page about a dataset: what came in, what was kept, and how it looks."""
