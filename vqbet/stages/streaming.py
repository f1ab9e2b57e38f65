"""Training in a clone that has data.dvc and no data/: numbers are fetched whole, pictures when they are first needed.

Switched on by $VQBET_STREAM. Files of pictures come from DVC's remote into DVC's cache, and stay there: windows are
drawn from all demonstrations at random, so that every file is needed again soon (docs/decisions/0021).
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import replace
from pathlib import Path

from vqbet import versions
from vqbet.contract import ConfigError, StoreError
from vqbet.demos.store import manifest
from vqbet.files import atomic
from vqbet.stages.paths import Paths
from vqbet.versions import Streamed

VARIABLE = "VQBET_STREAM"


def of(paths: Paths) -> Paths:
    """Return paths whose store is fetched from the remote, where $VQBET_STREAM is 1 and data/ has no store.

    Raises ConfigError for another value, StoreError and PipelineError where the numbers cannot be fetched.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", "0", "1"):
        raise ConfigError(f"environment variable {VARIABLE}: expected 0 or 1, got {asked!r}")
    if asked != "1" or paths.store.exists():
        return paths
    fetch = Streamed.of(paths.root, paths.store.name)
    if manifest.NAME not in fetch.files:
        raise StoreError(
            f"{paths.store}: version {versions.data_version(paths.root)[:12]} has no {manifest.NAME} of it"
        )
    return replace(paths, numbers=_numbers(paths.scratch("streamed"), fetch), fetch=fetch)


def _numbers(home: Path, fetch: Streamed) -> Path:
    """Return a folder with all files but those of pictures; it has its name only when it is complete."""
    folder = home / fetch.files[manifest.NAME]
    if folder.is_dir():
        return folder
    staging = home / f".{secrets.token_hex(8)}"
    try:
        for name in fetch.files:
            if not manifest.pictures(name):
                atomic.create(staging / name, fetch(name).read_bytes())
        staging.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster
            raise StoreError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder
