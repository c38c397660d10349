"""Preparation: cubes and images of any kind become prepared scenes."""
