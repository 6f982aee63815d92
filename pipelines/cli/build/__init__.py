"""Settings and preparation of `lrm build` and `lrm plan`."""
