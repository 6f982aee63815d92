"""A small dataset in closed form, and the way from it to a trained model."""
