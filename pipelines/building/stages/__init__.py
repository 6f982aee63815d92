"""The stages of a build, one file each, and what they share."""
