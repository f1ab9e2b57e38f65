"""Folders in this clone's DVC cache, of any stage and commit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from vqbet.versions import objects

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
MAX_MANIFEST_BYTES = 1 << 20


def cached_folders(root: Path, holds: str) -> Iterator[tuple[str, dict[str, Path]]]:
    """Yield the flat folders of the local cache that hold a file `holds`: object id, and the object's path by file.

    Skips folders with subfolders, with unusual names, or with files that the cache lacks. Does not verify the bytes.
    Raises PipelineError if DVC cannot open the repository.
    """
    with objects.opened(root, "DVC's cache cannot be read") as stores:
        home = stores.cached("0" * 32 + ".dir").parent.parent
        manifests = sorted(path for path in home.glob("*/*.dir") if path.stat().st_size <= MAX_MANIFEST_BYTES)
        for path in manifests:
            files = {name: stores.cached(md5) for name, md5 in _listed(path)}
            flat = all(NAME.fullmatch(name) for name in files)
            if holds in files and flat and all(place.is_file() for place in files.values()):
                yield path.parent.name + path.name, files


def _listed(path: Path) -> list[tuple[str, str]]:
    """Return name and md5 of each file in a DVC folder; an empty list if the manifest is invalid."""
    try:
        found = [(str(entry["relpath"]), str(entry["md5"])) for entry in json.loads(path.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return [] if any(not re.fullmatch(r"[0-9a-f]{32}", md5) for _, md5 in found) else found
