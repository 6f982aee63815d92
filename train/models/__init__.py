"""The models; module names are the keys of the published checkpoints."""
