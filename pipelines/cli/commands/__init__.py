"""The subcommands of `lrm`, one file each."""
