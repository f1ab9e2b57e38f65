"""Formats of foreign demonstrations, and their download. A task's `Task` says which format its data has."""

from __future__ import annotations

from pathlib import Path

MAX_BYTES = 1 << 30  # of a download, and of its unpacked content; the published Push-T archive has 31 MB


def located(source: Path) -> Path:
    """Return the archive or folder at `source` that an importer reads. Raises StoreError where there is none."""
    from vqbet.demos.importers import replay_buffer

    return source if source.is_file() else replay_buffer.find(source)
