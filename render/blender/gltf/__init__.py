"""The GLB document before Blender imports it: checked, limited and reduced to what is drawn."""
