"""Protocols of `lrm evaluate`: how a predicted shape is compared with the true one."""
