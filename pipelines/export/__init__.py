"""From the catalog to a snapshot, and from a snapshot to the folders of other trainers."""
