"""The folder to which a policy is copied, and a note on a policy that is not for every robot yet."""

from __future__ import annotations

from pathlib import Path

from vqbet.contract import BundleError

CHAMPION = "champion"


def held(reference: str) -> dict[str, str]:
    """Return a row where the reference is a champion that waits for its canary."""
    from vqbet import registry

    task, _, alias = reference.partition("@")
    waits = registry.released(task)[1] if alias == CHAMPION else None
    return {"canary": f"has not passed; for one robot, until vqbet canary {task} has released it"} if waits else {}


def parent(folder: Path) -> Path:
    """Return the folder above `folder`, made if needed. Raises BundleError unless `folder` is new or empty."""
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise BundleError(f"{folder}: expected a new or empty folder, this one is not; choose another")
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(f"{folder}: cannot be written: {error.strerror}; choose another folder") from error
    return folder.parent
