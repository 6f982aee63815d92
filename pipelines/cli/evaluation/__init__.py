"""`lrm evaluate`: what its options name, and the tables that it prints."""
