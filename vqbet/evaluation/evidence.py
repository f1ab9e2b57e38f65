"""The evidence of one verdict: its inputs, its result and its context, in a folder named by its hash.

    <id>/manifest.json   name, sha256 and size of every other file; its own sha256 is the id
         plan.json  records.jsonl  verdict.json        the verdict and the inputs to recompute it
         facts.json                                    data, digests, code, environment
         films/                                        some of the episodes
         trials/  simulated/                           of trials on a robot, see `trials.judging`

The folder suffices to recompute the verdict, and a change of any byte is detected.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqbet.contract import GateError
from vqbet.evaluation import gate, offline_gate, records
from vqbet.evaluation.gate import Verdict
from vqbet.evaluation.plan import Plan
from vqbet.evaluation.trials import judging
from vqbet.evaluation.trials.trial_plan import WORLD
from vqbet.files import atomic, canonical, manifest, reading
from vqbet.files.manifest import Fingerprint

MANIFEST, FACTS = "manifest.json", "facts.json"
NEEDED = ("plan.json", "records.jsonl", "verdict.json", FACTS)
VERSION = 1
MAX_FILE_BYTES = 256 * 2**20
MEND = "evidence holds plain files only: fetch it again (vqbet evidence fetch)"


def pack(store: Path, files: Mapping[str, Path], facts: Mapping[str, Any]) -> str:
    """Copy `files` (name in the folder -> source) into a new folder of `store` and return its id.

    A verdict that was packed before keeps its folder and id. Raises GateError where a file is missing, or the files do
    not reproduce the verdict.
    """
    for folder in folders(store):
        if (folder / "verdict.json").read_bytes() == files["verdict.json"].read_bytes():
            replay(folder)
            return folder.name
    contents = {name: _bytes(source, links=True) for name, source in files.items()}
    contents[FACTS] = canonical.document(dict(facts)).encode()
    listed = manifest.to_json({name: Fingerprint.of(content) for name, content in contents.items()})
    contents[MANIFEST] = canonical.document({"version": VERSION, "files": listed}).encode()
    made = Fingerprint.of(contents[MANIFEST]).sha256
    with atomic.replacing(store / made, GateError) as staging:
        for name, content in sorted(contents.items()):
            atomic.create(staging / name, content)
        replay(staging, made)
    return made


def folders(store: Path) -> list[Path]:
    """Return all evidence folders of `store`, in the order of their ids."""
    return sorted(path for path in store.glob("*") if len(path.name) == 64) if store.is_dir() else []


def find(store: Path, prefix: str) -> Path:
    """Return the folder whose id begins with `prefix`. Raises GateError where there is none, or more than one."""
    found = [folder for folder in folders(store) if folder.name.startswith(prefix)]
    if len(found) != 1:
        told = reading.short(prefix)
        have = ", ".join(folder.name[:12] for folder in folders(store)[:20]) or "none"
        raise GateError(f"{told}: expected the beginning of one verdict's id, found {len(found)}; there are: {have}")
    return found[0]


def replay(folder: Path, expected: str = "") -> Verdict:
    """Verify every byte, then decide again and compare. `expected`: the id, where the folder has another name.

    Raises GateError naming the file that is missing, added or changed.
    """
    verify(folder, expected)
    plan = Plan.read(folder / "plan.json")
    if plan.held_out:
        return gate.replay(folder, offline_gate.decide)
    on_robot = bool(plan.protocol) or plan.world.startswith(WORLD) or (folder / judging.TRIALS).exists()
    return judging.replay(folder) if on_robot else gate.replay(folder)


def verify(folder: Path, expected: str = "") -> None:
    """Verify every byte, without deciding again. Raises as `replay`."""
    expected = expected or folder.name
    path = folder / MANIFEST
    content = _bytes(path)
    if Fingerprint.of(content).sha256 != expected:
        raise GateError(f"{path}: was changed: its hash is not {expected[:12]}, which names this evidence")
    with reading.sentences(str(path), GateError):
        listed = manifest.from_json(records.parse(content.decode(), str(path))["files"])
    found = manifest.taken(folder, GateError, MEND, MAX_FILE_BYTES)
    del found[MANIFEST]
    for what, names in (
        ("is missing", sorted(set(listed) - set(found))),
        ("was added", sorted(set(found) - set(listed))),
        ("was changed", sorted(name for name in set(listed) & set(found) if listed[name] != found[name])),
        ("is missing", sorted(set(NEEDED) - set(listed))),
    ):
        if names:
            raise GateError(f"{folder / names[0]}: {what}; the evidence is no longer what the verdict was read from")


def _bytes(path: Path, *, links: bool = False) -> bytes:
    return reading.content(path, GateError, most=MAX_FILE_BYTES, mend=MEND, links=links)
