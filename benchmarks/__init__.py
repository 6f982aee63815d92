"""Measurements on real models that take too long for the tests."""
