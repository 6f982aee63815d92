"""The cost and duration of work: before, during and after a build."""
