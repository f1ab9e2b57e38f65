"""Recovery of the files behind a promotion where one copy is missing: verdicts, rehearsals, a champion's bundle.

Nothing is taken on trust: a bundle is restored only if its digest is the one in the ledger.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from vqbet import bundle, config, registry, versions
from vqbet.bundle import Bundle
from vqbet.contract import BundleError, GateError, VqbetError
from vqbet.demos import store
from vqbet.evaluation import evidence, records
from vqbet.stages import artifacts
from vqbet.stages.paths import Paths


def verdict(paths: Paths) -> dict[str, Any]:
    """Return the verdict in the task's artefacts. Raises GateError where it is missing or cannot be read."""
    path = paths.gate / "verdict.json"
    if not path.is_file():
        raise GateError(f"{path}: there is no verdict, or its gate failed; run the graph: dvc repro gate@{paths.task}")
    found = records.parse(records.load(path), str(path))
    if not isinstance(found, dict):
        raise GateError(f"{path}: expected a verdict, got {type(found).__name__}; run the graph again")
    return found


def rehearsal(paths: Paths, policy: Bundle) -> Path:
    """Return the file with the result of a rehearsal of `policy`: the gate's, else one in the evidence, else a new one.

    A new rehearsal needs the policy's demonstrations in data/. Raises GateError where the policy cannot be served.
    """
    path = paths.rehearsal(policy.digest)
    if path.is_file():
        return path
    for folder in evidence.folders(paths.verdicts):
        packed = folder / "rehearsal.json"
        with suppress(VqbetError):
            evidence.verify(folder)
            if records.parse(records.load(packed), str(packed)).get("digest") == policy.digest:
                return packed
    from vqbet.serving.rehearsal import rehearse

    budget_ms = config.task(paths.params, paths.task).gate.latency_ms
    made = rehearse(paths.policy, policy.digest, store.read(paths.store), budget_ms=budget_ms)
    artifacts.write_json(path, made.to_json())
    return path


def put_back(root: Path, task: str, number: int, digest: str) -> str:
    """Restore the files of a version in the registry; return a sentence that names their source.

    The bundle with this digest is searched in the artefacts and in DVC's cache. Raises BundleError where neither has
    it, RegistryError where the version belongs to another bundle or the registry rejects the files.
    """
    version = registry.resolve(f"{task}/{number}")
    if version.digest != digest:
        raise BundleError(f"{task}/{number}: the registry says digest {version.digest[:12]}, which is another bundle's")
    policy = Paths(root, task).policy
    if _is(policy, digest):
        names = registry.complete(version, policy)
        return f"{', '.join(names)} put back from {policy.relative_to(root)}"
    with tempfile.TemporaryDirectory() as scratch:
        for place, folder in _cached(root, digest, Path(scratch)):
            if _is(folder, digest):
                names = registry.complete(version, folder)
                return f"{', '.join(names)} put back from DVC's cache, object {place[:12]}"
    raise BundleError(
        f"{task}/{number}: neither {policy.relative_to(root)} nor DVC's cache holds the bundle {digest[:12]}; bring it "
        "here with `dvc fetch --all-commits`, or roll back"
    )


def _is(folder: Path, digest: str) -> bool:
    """Return whether `folder` holds the complete bundle with this digest."""
    try:
        bundle.read(folder, digest)
    except BundleError:
        return False
    return True


def _cached(root: Path, digest: str, into: Path) -> Iterator[tuple[str, Path]]:
    """Yield copies, below `into`, of folders in DVC's cache whose manifest names the digest; not verified further."""
    for number, (name, cached) in enumerate(versions.cached_folders(root, bundle.MANIFEST)):
        with suppress(OSError, ValueError, TypeError, RecursionError):
            if json.loads(cached[bundle.MANIFEST].read_bytes()).get("digest") != digest:
                continue
            folder = into / str(number)
            folder.mkdir()
            for file, place in cached.items():
                (folder / file).write_bytes(place.read_bytes())
            yield name, folder
