"""Files: atomic writes, canonical JSON, fingerprints, strict reading."""
