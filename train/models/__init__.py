"""The models in plain PyTorch; module names are the keys of the published checkpoints."""
