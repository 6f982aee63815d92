"""Shared foundations: errors, failure kinds, configuration, options, storage, locks, safe text."""
