"""Demonstrations: how they are stored, checked, cut into windows and brought in."""
