"""Samples for training: their order, reading, augmentation and replacement."""
