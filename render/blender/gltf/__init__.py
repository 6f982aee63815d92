"""The GLB that Blender imports: a checked one, reduced to what a still picture shows."""
