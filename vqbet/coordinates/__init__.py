"""Coordinates that a policy works in: the frame of a goal, targets instead of commands, the mirror image."""
