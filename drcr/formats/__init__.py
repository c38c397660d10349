"""Cubes in files: one file a format, reading and writing together."""
