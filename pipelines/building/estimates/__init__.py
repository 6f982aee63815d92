"""What work costs and how long it takes: before, during and after a build."""
