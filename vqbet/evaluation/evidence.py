"""The evidence of one verdict: all that it was read from and all that it speaks of, in a folder named by its hash.

    <id>/manifest.json   name, sha256 and size of every other file; its own sha256 is the id
         plan.json  records.jsonl  verdict.json        what the verdict is recomputed from
         facts.json                                    data, digests, code, environment: what else is to be known
         films/                                        some of the episodes

Whoever has the folder needs nothing else to recompute the verdict, and one byte changed anywhere is detected.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vqbet.contract import GateError
from vqbet.evaluation import gate, records
from vqbet.evaluation.gate import Verdict
from vqbet.files import reading
from vqbet.files.fingerprint import Fingerprint

MANIFEST, FACTS = "manifest.json", "facts.json"
NEEDED = ("plan.json", "records.jsonl", "verdict.json", FACTS)
VERSION = 1
MAX_FILE_BYTES = 256 * 2**20


def pack(store: Path, files: Mapping[str, Path], facts: Mapping[str, Any]) -> str:
    """Copy `files` (name in the folder -> where it is) into a new folder of `store`; gives its id.

    A verdict that was packed before keeps its folder: gives that id. Raises GateError where something is missing, or
    where the files do not give the verdict.
    """
    for folder in folders(store):
        if (folder / "verdict.json").read_bytes() == files["verdict.json"].read_bytes():
            replay(folder)
            return folder.name
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store, prefix=".packing-") as scratch:
        staging = Path(scratch) / "evidence"
        staging.mkdir()
        for name, source in sorted(files.items()):
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_bytes(source))
        records.save(staging / FACTS, records.document(dict(facts)))
        records.save(staging / MANIFEST, records.document({"version": VERSION, "files": _listed(staging)}))
        made = Fingerprint.of((staging / MANIFEST).read_bytes()).sha256
        replay(staging, made)
        shutil.move(staging, store / made)
    return made


def folders(store: Path) -> list[Path]:
    """The evidence there is, in the order of its ids."""
    return sorted(path for path in store.glob("*") if len(path.name) == 64) if store.is_dir() else []


def find(store: Path, prefix: str) -> Path:
    """The folder whose id begins with `prefix`. Raises GateError where there is none, or more than one."""
    found = [folder for folder in folders(store) if folder.name.startswith(prefix)]
    if len(found) != 1:
        told = reading.short(prefix)
        have = ", ".join(folder.name[:12] for folder in folders(store)[:20]) or "none"
        raise GateError(f"{told}: expected the beginning of one verdict's id, found {len(found)}; there are: {have}")
    return found[0]


def replay(folder: Path, expected: str = "") -> Verdict:
    """Check every byte, then decide again and compare. `expected`: the id, unless the folder is named by it.

    Raises GateError naming the file that is missing, added or changed.
    """
    verify(folder, expected)
    return gate.replay(folder)


def verify(folder: Path, expected: str = "") -> None:
    """Check every byte. Raises as `replay`, which also decides again."""
    expected = expected or folder.name
    manifest = folder / MANIFEST
    text = records.load(manifest)
    if Fingerprint.of(text.encode()).sha256 != expected:
        raise GateError(f"{manifest}: was changed: its hash is not {expected[:12]}, which names this evidence")
    with reading.sentences(str(manifest), GateError):
        listed = dict(records.parse(text, str(manifest))["files"])
    found = _listed(folder)
    for what, names in (
        ("is missing", sorted(set(listed) - set(found))),
        ("was added", sorted(set(found) - set(listed))),
        ("was changed", sorted(name for name in set(listed) & set(found) if listed[name] != found[name])),
        ("is missing", sorted(set(NEEDED) - set(listed))),
    ):
        if names:
            raise GateError(f"{folder / names[0]}: {what}; the evidence is no longer what the verdict was read from")


def _listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file below a folder but its manifest, by name. Raises GateError for a link."""
    found = {}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST:
            found[name] = Fingerprint.of(_bytes(path)).to_json()
    return found


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise GateError(f"{path}: is a link; evidence holds files only")
        if path.is_file():
            yield path


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise GateError(f"{path}: expected at most {MAX_FILE_BYTES} bytes, got {path.stat().st_size}")
        return path.read_bytes()
    except OSError as error:
        raise GateError(f"{path}: cannot be read: {error.strerror}") from error
