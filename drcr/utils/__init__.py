"""What all rooms use: command line, files, processes."""
