"""The recipes: configuration, model, loss, validation and preview of each kind of training."""
