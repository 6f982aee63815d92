"""The only GLB parser of the project; it accepts what Blender's importer can read."""
