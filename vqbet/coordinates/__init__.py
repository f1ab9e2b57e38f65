"""Coordinates in which a policy works: the goal frame, absolute targets for relative commands, the mirror image."""
