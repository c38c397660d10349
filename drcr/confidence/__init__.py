"""The map that says which error to expect in each pixel, and the table that it comes from."""
