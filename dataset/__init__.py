"""The data model: objects, cameras, views, shards, the catalog and snapshots."""
