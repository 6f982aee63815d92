"""Limits on the time of tasks on Ray: the driver ends those that hang, and stores the failures."""
