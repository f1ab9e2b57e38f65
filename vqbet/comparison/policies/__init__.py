"""Baselines: cloning, BeT, BESO and Diffusion Policy."""
