"""What the evidence of earlier verdicts says about the next one: other trainings of a recipe, and how scores spread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vqbet.bundle import Bundle
from vqbet.evaluation import evidence, records
from vqbet.stages.paths import Paths


def retrained(root: Path, task: str, policy: Bundle) -> list[float]:
    """Mean scores of policies that were judged here and differ from this one in their training seeds only.

    The same demonstrations and parameters; each policy once, in the order of their digests.
    """
    found = {}
    for verdict, facts in judged(root, task):
        made = facts["policy"]
        same = _recipe(made["provenance"]) == _recipe(dict(policy.provenance))
        if same and made["digest"] != policy.digest and verdict["numbers"]:
            found[made["digest"]] = float(verdict["numbers"]["candidate"]["score"])
    return [found[digest] for digest in sorted(found)]


def judged(root: Path, task: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each verdict about the task whose evidence is here, and its facts. Raises GateError where one was changed."""
    for folder in evidence.folders(Paths(root, task).verdicts):
        evidence.verify(folder)
        names = ("plan.json", "verdict.json", evidence.FACTS)
        plan, verdict, facts = (records.parse(records.load(folder / name), str(folder / name)) for name in names)
        if plan["task"] == task:
            yield verdict, facts


def _recipe(provenance: dict[str, Any]) -> Any:
    """Data and parameters, without the seeds of the trainings."""
    params = {
        stage: {name: value for name, value in chosen.items() if name != "seed"}
        for stage, chosen in provenance.get("params", {}).items()
    }
    return provenance.get("data"), params
