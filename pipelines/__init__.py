"""How it runs: sources, the plan, stages, executors, reports and the command line."""
