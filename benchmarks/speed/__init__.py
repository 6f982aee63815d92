"""What things cost: time, memory, bytes."""
