"""Scores of folders of reconstructions, and maps per pixel to compare with."""
