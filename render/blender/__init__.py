"""The code that runs inside the Blender child process."""
