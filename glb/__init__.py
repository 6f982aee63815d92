"""The only GLB parser of the project; it checks what a picture of the default scene needs."""
