"""Restore one task's store from an earlier version of data/ into a new folder. data/ itself is not changed.

Reads the objects directly, like the audit: a checkout would change data/, and DVC does not verify the objects that it
gets from a remote.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from vqbet.contract import PipelineError
from vqbet.files import atomic
from vqbet.versions import objects
from vqbet.versions.objects import Stores

Progress = Callable[[int, int], None]


def restore(root: Path, md5: str, task: str, target: Path, *, progress: Progress | None = None) -> Path:
    """Restore `data/<task>.zarr` of the data version `md5` (of data.dvc, ends in ".dir") to the new folder `target`.

    Every object is read from the local cache, else from the default remote, and its md5 is verified before it is
    written. `target` appears once all files are written. progress(done, files). Raises PipelineError if the version or
    one of its files is missing or damaged, or the version holds no such store.
    """
    if not md5.endswith(".dir"):
        raise PipelineError(f"expected a data version as data.dvc names it, ending in .dir, got {md5!r}")
    if target.exists():
        raise PipelineError(f"{target}: expected a new folder for data/{task}.zarr of {md5[:12]}; remove it first")
    where = f"data version {md5}"
    with (
        objects.opened(root, f"{where} cannot be restored") as stores,
        atomic.replacing(target, PipelineError) as staging,
    ):
        files = _files(_object(stores, md5, "its manifest", where), task, where)
        for done, (name, oid) in enumerate(sorted(files.items()), start=1):
            atomic.create(staging / name, _object(stores, oid, f"{task}.zarr/{name}", where))
            if progress is not None:
                progress(done, len(files))
    return target


def _files(manifest: bytes, task: str, where: str) -> dict[str, str]:
    """Return the object id of each file of the task's store, by path within the store."""
    try:
        listed = {PurePosixPath(entry["relpath"]): str(entry["md5"]) for entry in json.loads(manifest)}
    except (ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{where}: its manifest is not one of DVC's: {error}; restore data.dvc from git") from error
    store = f"{task}.zarr"
    found = {path: oid for path, oid in listed.items() if path.parts[:1] == (store,) and len(path.parts) > 1}
    if wrong := [path for path in found if ".." in path.parts]:
        raise PipelineError(f"{where}: {wrong[0]}: leads out of the store; nothing was written")
    if not found:
        stores = ", ".join(sorted({str(path).split("/")[0] for path in listed})) or "nothing"
        raise PipelineError(f"{where}: holds no {store}, it holds {stores}; compare with a policy trained on this task")
    return {path.relative_to(store).as_posix(): oid for path, oid in found.items()}


def _object(stores: Stores, oid: str, name: str, where: str) -> bytes:
    """Return the bytes with md5 `oid`, from the cache, else from the remote."""
    wanted, cached = oid.removesuffix(".dir"), stores.cached(oid)
    if cached.is_file() and objects.md5(content := cached.read_bytes()) == wanted:
        return content
    try:
        content = stores.read(oid)
    except FileNotFoundError as error:
        raise PipelineError(
            f"{where}: {name} is neither in the local cache ({cached}) nor in the remote ({stores.path(oid)}); push it "
            "from the clone that has it: git checkout <the commit with that data.dvc> data.dvc && dvc push"
        ) from error
    if (found := objects.md5(content)) != wanted:
        raise PipelineError(
            f"{where}: {name}: the remote's object {stores.path(oid)} is damaged, its content has md5 {found}; delete "
            "it there and push again from a clone that has that version"
        )
    return content
