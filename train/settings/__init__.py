"""What a training run is configured with."""
