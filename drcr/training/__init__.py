"""Training: prepared scenes become checkpoints."""
