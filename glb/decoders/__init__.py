"""Decoders of compressed buffer views and images, which neither Blender nor Pillow has."""
