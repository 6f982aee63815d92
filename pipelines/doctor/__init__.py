"""The checks of `lrm doctor`, one file per subject; every check returns findings."""
