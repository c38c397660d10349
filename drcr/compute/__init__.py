"""Where and how the network runs: device, memory, streaming, Winograd convolution."""
