"""Listing and deletion of .vqbet, much of which cannot be recreated: `vqbet forget --yes-really`."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from vqbet.contract import PipelineError

KEPT = {
    "rehearsals": "what rehearsals showed",
    "ingested": "where demonstrations came from",
    "keys": "signing keys",
    "ledger": "locks of the ledger",
    "ledger.db": "who was champion when, and approvals",
    "mlartifacts": "files of registered policies, runs and verdicts",
    "mlflow.db": "the registry: versions, aliases, runs",
    "remote": "every version of data/ that was pushed",
    "verdicts": "the evidence of all verdicts",
}
ELSEWHERE = ("MLFLOW_TRACKING_URI", "VQBET_LEDGER", "VQBET_STORAGE")
SECRET = re.compile(r"//[^/@]*@")


def listing(root: Path) -> dict[str, str]:
    """Return a row with the size of each entry of .vqbet, and one for each external place, which is not deleted.

    Empty where .vqbet holds no file.
    """
    home = root / ".vqbet"
    sizes = {path.name: _size(path) for path in sorted(home.glob("*"))}
    rows = {
        f".vqbet/{name}": f"{size / 1e6:,.1f} MB, {KEPT.get(name, 'can be made again')}"
        for name, size in sizes.items()
        if size
    }
    if rows:
        rows["in all"] = f"{sum(sizes.values()) / 1e6:,.1f} MB"
        rows |= {name: f"{SECRET.sub('//', place)}, stays" for name, place in _elsewhere(home).items()}
    return rows


def forget(root: Path) -> None:
    """Delete .vqbet for good: registry, ledger, evidence, approvals, keys, and the remote of data/.

    Raises PipelineError where .vqbet is a link, or cannot be deleted.
    """
    home = root / ".vqbet"
    if home.is_symlink():
        raise PipelineError(f"{home}: is a link; nothing was deleted: remove what it points to by hand")
    try:
        shutil.rmtree(home)
    except OSError as error:
        where = error.filename or home
        raise PipelineError(f"{where}: cannot be deleted: {error.strerror}; the rest may be gone") from error


def _elsewhere(home: Path) -> dict[str, str]:
    """Return the environment variables that name a place outside .vqbet, with their values."""
    named = {name: os.environ.get(name, "") for name in ELSEWHERE}
    return {name: place for name, place in named.items() if place and str(home) not in place}


def _size(path: Path) -> int:
    """Return the size in bytes of a file, or of all files of a folder."""
    if path.is_dir() and not path.is_symlink():
        return sum(_size(entry) for entry in path.iterdir())
    return path.lstat().st_size
