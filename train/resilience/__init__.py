"""Handling of failures and requests in a run: damaged samples, bad steps, hung ranks, stops."""
