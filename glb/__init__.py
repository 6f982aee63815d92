"""The one parser of GLB files: what it passes, Blender's importer reads."""
