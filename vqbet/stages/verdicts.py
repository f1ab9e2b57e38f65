"""Packing of a verdict's evidence into the evidence store, and its retrieval."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

from vqbet import bundle, environment, registry, storage, versions
from vqbet.contract import GateError, RegistryError, StorageError
from vqbet.demos import store
from vqbet.evaluation import evidence, records
from vqbet.evaluation.evidence import FACTS
from vqbet.evaluation.gate import Verdict
from vqbet.files import reading
from vqbet.stages import code_version, kept
from vqbet.stages.paths import Paths

__all__ = ["FACTS", "found", "listing", "pack", "replay"]
PACKAGES = ("torch", "numpy", "scipy", "zarr", "mlflow", "dvc", "prefect")


def pack(root: Path, task: str) -> tuple[str, Verdict]:
    """Pack the evidence of the verdict in the task's artefacts, unless already packed; return its id and the verdict.

    Raises GateError where the verdict is not about the policy in the artefacts, or cannot be recomputed.
    """
    paths = Paths(root, task)
    policy = bundle.read(paths.policy)
    about = kept.verdict(paths).get("candidate")
    if about != policy.digest:
        raise GateError(
            f"{paths.gate}: the verdict is about {str(about)[:12] or 'no policy'}, {paths.policy} is "
            f"{policy.digest[:12]}; run the graph: dvc repro gate@{task}"
        )
    files = {name: paths.gate / name for name in ("plan.json", "records.jsonl", "verdict.json")}
    films = [film for folder in (paths.evaluation, paths.gate) for film in sorted((folder / "films").glob("*.webm"))]
    files |= {f"films/{film.name}": film for film in films}
    files |= {"policy.json": paths.policy / "bundle.json", "rehearsal.json": kept.rehearsal(paths, policy)}
    packed = evidence.pack(paths.verdicts, files, _facts(root, task, policy))
    return packed, evidence.replay(paths.verdicts / packed)


def found(root: Path, prefix: str) -> tuple[Path, Verdict]:
    """Return the folder of the evidence and the verdict recomputed from it. prefix: the beginning of the evidence's id.

    Evidence that is not here is fetched from the registry, else from the bucket if one is configured. Raises GateError
    where a byte was changed, RegistryError or StorageError where no place has the evidence.
    """
    if not re.fullmatch("[0-9a-f]{1,64}", prefix):
        raise GateError(f"{reading.short(prefix)}: expected the beginning of a verdict's id, which is hexadecimal")
    verdicts = Paths(root, "").verdicts
    here = [folder for folder in evidence.folders(verdicts) if folder.name.startswith(prefix)]
    folder = evidence.find(verdicts, prefix) if here else _fetched(prefix, verdicts)
    return folder, evidence.replay(folder)


def replay(root: Path, prefix: str) -> dict[str, str]:
    """Recompute a verdict from its evidence alone. Raises as `found`."""
    folder, verdict = found(root, prefix)
    return {
        "verdict": f"{verdict.outcome}: {verdict.reason}",
        "evidence": f"{folder.name}, unchanged",
        "recomputed": "byte for byte the same",
        "candidate": verdict.candidate,
        "champion": verdict.champion or "none",
        "episodes": f"{verdict.episodes} of each policy, {len(verdict.looked)} looks",
        "files": str(folder),
    }


def listing(root: Path) -> dict[str, str]:
    """Return a row for each verdict: the beginning of its id, and outcome, task and candidate."""
    rows = {}
    for folder in evidence.folders(Paths(root, "").verdicts):
        evidence.verify(folder)
        plan, verdict = (records.parse(records.load(folder / f"{name}.json"), name) for name in ("plan", "verdict"))
        rows[folder.name[:12]] = f"{verdict['outcome']}, {plan['task']}, candidate {verdict['candidate'][:12]}"
    return rows or {"verdicts": "none yet; run the pipeline once"}


def _fetched(prefix: str, verdicts: Path) -> Path:
    bucket = storage.configured()
    try:
        return registry.fetch(prefix, verdicts)
    except RegistryError as absent:
        if bucket is None:
            raise
        try:
            return bucket.fetch_folder(prefix, verdicts)
        except StorageError as error:
            raise StorageError(f"{absent}; {error}") from error


def facts_of_trials(root: Path, candidate: str) -> dict[str, Any]:
    """Return the facts beside a verdict on robot trials about a candidate's digest."""
    return {
        "data_version": versions.data_version(root),
        "git_commit": versions.git_commit(root),
        "dirty": versions.dirty(root),
        "policy": {"digest": candidate},
        "machine": environment.machine(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def _facts(root: Path, task: str, policy: bundle.Bundle) -> dict[str, Any]:
    return {
        "data_version": versions.data_version(root),
        "store": store.digest(Paths(root, task).store),
        "git_commit": versions.git_commit(root),
        "dirty": versions.dirty(root),
        "policy": {"digest": policy.digest, "kind": policy.kind, "provenance": dict(policy.provenance)},
        "gate_code": code_version.digest("vqbet.stages.gate", task),
        "machine": environment.machine(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }
