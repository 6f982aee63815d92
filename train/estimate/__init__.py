"""What a run takes before it starts: parameters, memory, operations, time."""
