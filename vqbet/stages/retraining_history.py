"""Information available before the next verdict: scores of other trainings of the recipe, and their spread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vqbet import bundle
from vqbet.bundle import Bundle
from vqbet.evaluation import evidence, records
from vqbet.stages.paths import Paths


def retrained(root: Path, task: str, policy: Bundle) -> list[float]:
    """Return the mean scores of policies that differ from `policy` only in their training seeds.

    These are the policies of `retrain`, which were all evaluated alike; where it made fewer than two, those with a
    verdict here. Demonstrations and other parameters are the same. Each policy counts once, in the order of digests.
    """
    found = dict(_trained_again(root, task, policy))
    if len(found) < 2:
        found = dict(_judged_before(root, task, policy))
    return [found[digest] for digest in sorted(found)]


def _judged_before(root: Path, task: str, policy: Bundle) -> Iterator[tuple[str, float]]:
    for verdict, facts in judged(root, task):
        made = facts["policy"]
        if made["digest"] != policy.digest and _same_recipe(made["provenance"], policy) and verdict["numbers"]:
            yield made["digest"], float(verdict["numbers"]["candidate"]["score"])


def _trained_again(root: Path, task: str, policy: Bundle) -> Iterator[tuple[str, float]]:
    for paths in Paths(root, task).trainings():
        if not (paths.evaluation / "records.jsonl").exists():  # not finished
            continue
        other = bundle.read(paths.policy)
        scores = played(paths, other)
        if other.digest != policy.digest and _same_recipe(other.provenance, policy) and len(scores):
            yield other.digest, float(scores.mean())


def played(paths: Paths, policy: Bundle) -> Float[np.ndarray, " E"]:
    """Return the scores that `evaluate` recorded for this policy; empty where it recorded another policy."""
    found = records.read(paths.evaluation / "records.jsonl")
    return np.array([record.score for record in found if record.digest == policy.digest])


def judged(root: Path, task: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each simulated verdict about the task with local evidence, and its facts.

    Raises GateError where one was changed.
    """
    for folder in evidence.folders(Paths(root, task).verdicts):
        evidence.verify(folder)
        names = ("plan.json", "verdict.json", evidence.FACTS)
        plan, verdict, facts = (records.parse(records.load(folder / name), str(folder / name)) for name in names)
        if plan["task"] == task and not plan.get("protocol") and not plan.get("held_out"):
            yield verdict, facts


def _same_recipe(provenance: Mapping[str, Any], policy: Bundle) -> bool:
    return bool(_recipe(provenance) == _recipe(policy.provenance))


def _recipe(provenance: Mapping[str, Any]) -> Any:
    """Return data and parameters, without the training seeds."""
    params = {
        stage: {name: value for name, value in chosen.items() if name != "seed"}
        for stage, chosen in provenance.get("params", {}).items()
    }
    return provenance.get("data"), params
