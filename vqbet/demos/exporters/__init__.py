"""Demonstrations in foreign formats, written."""
