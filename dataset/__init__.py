"""What the data is: objects, cameras, views, shards, the catalog and snapshots."""
