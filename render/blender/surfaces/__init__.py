"""Rules that turn the triangles of a file into those that a picture shows; numpy only, no bpy."""
