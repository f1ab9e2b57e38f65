"""Replay of the gate's episodes in a clean process before a promotion. The sample is drawn after the records exist.

    python -m vqbet.commands.recheck <given.json> <played.jsonl>

Batch size changes floating-point rounding, so the whole batch of a drawn episode is played again, and each of its
records must be equal bit for bit.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from vqbet import bundle, environment, registry, versions
from vqbet.contract import EpisodeRecord, GateError, VqbetError
from vqbet.demos import store
from vqbet.environment import processes
from vqbet.evaluation import gate as rules
from vqbet.evaluation import records
from vqbet.evaluation.plan import Plan, Slice
from vqbet.evaluation.pool import Assignment, RolloutPool
from vqbet.evaluation.rollout import Label
from vqbet.stages import artifacts, verdicts
from vqbet.stages.gate import CANDIDATE, CHAMPION, arms_of, assignments_of
from vqbet.stages.paths import Paths
from vqbet.stages.players import StorePlayers, here
from vqbet.stages.progress import Advance, Watch

DRAWN = 8  # episodes of candidate and champion together; one of each baseline
PACKAGE_ROOT = Path(__file__).resolve().parent.parent.parent


def run(root: Path, task: str, proof: str, watch: Watch) -> str:
    """Replay a random sample of the episodes in the evidence `proof`; return a sentence about the replay.

    Returns "" where this machine is of another kind than the gate's, so that records cannot be compared. Raises
    GateError naming the first record that differs.
    """
    folder, _ = verdicts.found(root, proof)
    plan, facts = Plan.read(folder / "plan.json"), _facts(folder)
    if (plan.machine or facts.get("machine")) != environment.machine():
        return ""
    judged = records.read(folder / "records.jsonl")
    (root / ".vqbet").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / ".vqbet", prefix="recheck-") as scratch:
        folders = _bundles(task, plan, Path(scratch))
        drawn = draw(plan, judged, folders)
        demos = _store(root, task, folder, Path(scratch))
        with watch.bar(f"{task}: judged episodes again") as advance:
            again = [here(plan, record) for record in _elsewhere(drawn, demos, Path(scratch), advance)]
    compare(judged, again, f"{task}: verdict {proof[:12]}")
    return f"{len(again)} of {len(judged)} records played again, bit for bit the same"


def draw(plan: Plan, judged: list[EpisodeRecord], folders: Mapping[str, Path]) -> list[Assignment]:
    """Return the shards with the drawn episodes. Uses the operating system's randomness, which cannot be predicted."""
    played = len(rules.by_policy(judged)[CANDIDATE])
    looks = [0, *(look for look in plan.looks if look <= played)]
    shards = [
        shard
        for first, end in pairwise(looks)
        for job in assignments_of(plan, range(plan.first_seed + first, plan.first_seed + end), folders)
        for shard in job.shards()
    ]
    random = secrets.SystemRandom()
    seeds = range(plan.first_seed, plan.first_seed + played)
    trained = [name for name in arms_of(plan) if name in (CANDIDATE, CHAMPION)]
    each = min(DRAWN // len(trained), played)
    wanted = {name: set(random.sample(seeds, each if name in trained else 1)) for name in arms_of(plan)}
    return [shard for shard in shards if wanted[shard.label.policy].intersection(shard.seeds)]


def compare(judged: list[EpisodeRecord], again: list[EpisodeRecord], where: str) -> None:
    """Raise GateError unless each replayed record equals one of the gate's records."""
    known = {(record.policy, record.seed): record for record in judged}
    for record in again:
        before = known.get((record.policy, record.seed))
        if before == record:
            continue
        now, then = record.to_json(), before.to_json() if before else {}
        fields = [f"{name} {then.get(name)!r}, now {value!r}" for name, value in now.items() if then.get(name) != value]
        raise GateError(
            f"{where}: {record.policy} on seed {record.seed} does not play as recorded: {'; '.join(fields[:3])}; "
            "the records are not of these policies on this machine; nothing is promoted on them. Run the gate again"
        )


def _bundles(task: str, plan: Plan, scratch: Path) -> dict[str, Path]:
    """Download candidate and champion; return their folders by arm. Raises RegistryError where one is missing."""
    found = {}
    for name, digest in ((CANDIDATE, plan.candidate), (CHAMPION, plan.champion)):
        if digest:
            found[name] = registry.download(registry.by_digest(task, digest), scratch / name)
            bundle.read(found[name], digest)
    return found


def _store(root: Path, task: str, folder: Path, scratch: Path) -> Path:
    """Return the store that the gate used: the present one if its digest is equal, else restored from its version."""
    facts, present = _facts(folder), Paths(root, task).store
    if present.is_dir() and store.digest(present) == facts["store"]:
        return present
    past = versions.restore(root, facts["data_version"], task, scratch / "store.zarr")
    if store.digest(past) != facts["store"]:
        raise GateError(
            f"{task}: the episodes were played beside demonstrations {facts['store'][:12]}, and the data version "
            f"{facts['data_version'][:12]} holds others; dvc pull the version that was judged, or run the gate again"
        )
    return past


def _facts(folder: Path) -> dict[str, Any]:
    """Return the facts in the evidence. Raises GateError where they are not a JSON object."""
    path = folder / verdicts.FACTS
    found = records.parse(records.load(path), str(path))
    if not isinstance(found, dict):
        raise GateError(f"{path}: expected an object, got {type(found).__name__}")
    return found


def _elsewhere(drawn: list[Assignment], demos: Path, scratch: Path, advance: Advance) -> list[EpisodeRecord]:
    """Return the records of these jobs, played in a process that shares no state with this one."""
    given, played = scratch / "given.json", scratch / "played.jsonl"
    artifacts.write_json(given, {"store": str(demos.resolve()), "jobs": [_written(job) for job in drawn]})
    own = ("PATH", processes.WORKERS)
    clean = {name: os.environ[name] for name in own if name in os.environ} | environment.embedded(scratch)
    with (scratch / "errors").open("w+", encoding="utf-8") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "vqbet.commands.recheck", str(given.resolve()), str(played.resolve())],
            cwd=scratch,
            env={**environment.SILENCE, **clean, "PYTHONPATH": str(PACKAGE_ROOT)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with child:
            for line in child.stdout or ():
                done, total = line.split()
                advance(int(done), int(total), {})
        if child.returncode:
            errors.seek(0)
            reason = (errors.read().strip().splitlines() or ["no reason given"])[-1]
            raise GateError(f"the judged episodes cannot be played again: {reason}")
    return records.read(played)


def main(given: str, played: str) -> None:
    """Play in the clean process and report the progress to the parent."""
    processes.die_with_parent()
    asked = artifacts.read_json(Path(given))
    with RolloutPool(StorePlayers(Path(asked["store"]))) as pool:
        found = pool.play("", [_read(job) for job in asked["jobs"]], _reporting)
    records.write(Path(played), [record for play in found for record in play.records])


@contextmanager
def _reporting(_label: str) -> Iterator[Advance]:
    def advance(done: int, total: int, _numbers: Mapping[str, float]) -> None:
        sys.stdout.write(f"{done} {total}\n")
        sys.stdout.flush()

    yield advance


def _written(job: Assignment) -> dict[str, Any]:
    return {**asdict(job), "seeds": list(job.seeds), "bundle": str(job.bundle.resolve()) if job.bundle else ""}


def _read(value: dict[str, Any]) -> Assignment:
    within = Slice(**value["within"]) if value["within"] else None
    folder = Path(value["bundle"]) if value["bundle"] else None
    return Assignment(Label(**value["label"]), value["seeds"], folder, within)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except VqbetError as error:
        sys.exit(f"{type(error).__name__}: {error}")
