"""What is trained: one file per recipe, each with its configuration, model, step and preview."""
