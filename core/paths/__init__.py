"""Folders as users and libraries name them."""
