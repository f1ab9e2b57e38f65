"""Output files of a gate, made without playing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vqbet.contract import EpisodeRecord
from vqbet.evaluation import gate, records
from vqbet.evaluation.plan import Plan

Arm = Callable[..., list[EpisodeRecord]]
FACTS = {"data_version": "d" * 32, "packages": {"torch": "2"}}


def made(plan: Plan, arm: Arm, folder: Path) -> dict[str, Path]:
    """Write the output files of a gate and a film; return their paths by name."""
    scores = {"candidate": np.linspace(0.6, 1.0, plan.most), "champion": np.full(plan.most, 0.4)}
    arms = {name: arm(plan, name, scores.get(name, np.zeros(plan.most))) for name in ("candidate", "champion", "noop")}
    folder.mkdir()
    plan.write(folder / "plan.json")
    records.write(folder / "records.jsonl", [record for played in arms.values() for record in played])
    gate.write(folder / "verdict.json", gate.decide(plan, arms))
    (folder / "seed-1.webm").write_bytes(b"film")
    files = {name: folder / name for name in ("plan.json", "records.jsonl", "verdict.json")}
    return {**files, "films/seed-1.webm": folder / "seed-1.webm"}
