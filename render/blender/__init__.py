"""Code that runs inside the Blender child process."""
