"""What a run reports while it trains: metrics, logs, times, pictures."""
