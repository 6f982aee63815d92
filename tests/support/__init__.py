"""Code that tests and benchmarks share: inputs, small models, fake servers, short runs."""
