"""What a long command reports to other programs: metrics, and a hook when it ends."""
