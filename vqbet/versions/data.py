"""The version of data/ in data.dvc, made by `dvc add` and copied to the remote by `dvc push`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vqbet.contract import PipelineError
from vqbet.versions import transfer
from vqbet.versions.process import dvc

LOCKED = re.compile(r"^ *(?:- )?path: data/([^/\s]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class DataVersion:
    """Content of data.dvc. `md5` ends in ".dir" and identifies the content of every file under data/."""

    md5: str
    files: int
    size: int  # bytes
    changed: bool = False  # whether this call made a new version


def add(root: Path) -> DataVersion:
    """Version data/ in its present state. Raises PipelineError if there is nothing to version or DVC refuses."""
    if not any((root / "data").glob("*")):
        raise PipelineError(f"{root / 'data'}: expected demonstrations to version; run `vqbet ingest` first")
    before = read(root).md5 if (root / "data.dvc").exists() else ""
    dvc(root, "add", "data")
    now = read(root)
    return DataVersion(now.md5, now.files, now.size, changed=now.md5 != before)


def push(root: Path) -> None:
    """Copy the version of data/ to the default remote. Call `audit` before data.dvc is committed."""
    read(root)
    transfer.send(root, "data.dvc")


def data_version(root: Path) -> str:
    """Return the md5 in data.dvc, as used in tags and bundles."""
    return read(root).md5


def stores(root: Path) -> list[str]:
    """Return the names in data/ of the version in data.dvc, such as "pusht.zarr"; an empty list without a version.

    Reads the local cache without DVC. In a fresh clone, which has no cache, reads dvc.lock.
    """
    if not (root / "data.dvc").is_file():
        return []
    md5 = read(root).md5
    try:
        listed = json.loads((root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]).read_bytes())
        return sorted({str(entry["relpath"]).split("/")[0] for entry in listed if "/" in entry["relpath"]})
    except (OSError, ValueError, KeyError, TypeError):
        lock = root / "dvc.lock"
        return sorted(set(LOCKED.findall(lock.read_text(encoding="utf-8")))) if lock.is_file() else []


def read(root: Path) -> DataVersion:
    """Return the content of data.dvc. Raises PipelineError if it is missing or does not hold one versioned folder."""
    path = root / "data.dvc"
    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        (out,) = value["outs"]
        found = DataVersion(str(out["md5"]), int(out["nfiles"]), int(out["size"]))
    except FileNotFoundError as error:
        raise PipelineError(f"{path}: missing: data/ has no version yet; run `vqbet ingest` first") from error
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read: {error.strerror}") from error
    except (YAMLError, KeyError, TypeError, ValueError) as error:
        raise PipelineError(
            f"{path}: expected one output with md5, size and nfiles, as `dvc add data` writes it: "
            f"{' '.join(str(error).split())}; restore it from git"
        ) from error
    if not found.md5.endswith(".dir"):
        raise PipelineError(f"{path}: expected the version of a folder, got md5 {found.md5!r}; restore it from git")
    return found
