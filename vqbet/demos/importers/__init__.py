"""Published data sets, one file each, by the task they are brought in as."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from vqbet.contract import Demonstrations


def _kitchen(source: Path) -> Demonstrations:
    from vqbet.tasks.kitchen.importer import load

    return load(source)


def _pusht(source: Path) -> Demonstrations:
    from vqbet.tasks.pusht.importer import load

    return load(source)


IMPORTERS: Mapping[str, Callable[[Path], Demonstrations]] = {"kitchen": _kitchen, "pusht": _pusht}
FORMATS: Mapping[str, str] = {"kitchen": "replay buffer, Zarr v2", "pusht": "replay buffer, Zarr v2"}
MAX_BYTES = 1 << 30  # of a download, and of what it unpacks to; the published Push-T archive has 31 MB


def located(source: Path) -> Path:
    """Return the archive or folder at `source` that an importer reads. Raises StoreError where there is none."""
    from vqbet.demos.importers import replay_buffer

    return source if source.is_file() else replay_buffer.find(source)
