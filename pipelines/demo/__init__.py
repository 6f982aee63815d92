"""The demo: a small generated source, and all steps from it to a trained model."""
