"""Training of large reconstruction models: data order, models, losses, recipes, one loop."""
