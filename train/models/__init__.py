"""The models; their modules are named after the keys of the published checkpoints."""
