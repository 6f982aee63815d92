"""Whether things are right: fits, learning curves, equal bytes."""
