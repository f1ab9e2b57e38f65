"""The one training loop, its recipe and its checkpoints."""
