"""Building a dataset: listing, plan, decisions, stages, executors, progress, cost."""
