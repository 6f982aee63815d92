"""The training loop of all recipes, and the checks before its first step."""
