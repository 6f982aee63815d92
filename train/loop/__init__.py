"""The one training loop, and what it checks before the first step."""
