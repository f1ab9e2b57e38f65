"""Bytes on disk: whole or not at all, fingerprinted, read strictly."""
