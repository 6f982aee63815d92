"""What runs the project: sources, plan, stages, executors, reports and the command line."""
