"""Demonstrations: import, storage, validation, and training windows."""
