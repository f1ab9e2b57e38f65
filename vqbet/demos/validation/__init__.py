"""Validation of demonstrations before training: Great Expectations, and checks of our own."""
