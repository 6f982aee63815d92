"""Reports of a run while it trains: metrics, logs, timings, preview images."""
