"""Evaluation of trained models: predictions, metrics, and the protocols of papers."""
