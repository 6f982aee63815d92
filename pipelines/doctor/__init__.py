"""What a machine needs, looked for on this one: a file per subject, findings as the answer."""
