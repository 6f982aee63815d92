"""What a run does when something fails: damaged samples, bad steps, hangs, stop requests."""
