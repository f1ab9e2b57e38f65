"""What lies on disk has the bytes it always had: digests, links, records, ids and verdicts, against golden ones.

Write the golden file again only where a change of the bytes is meant: `python -m tests.files.test_bytes`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import gate_folder, point
from tests.support.synthetic import synthetic
from tests.test_bundle import write as write_bundle
from vqbet.contract import EpisodeRecord
from vqbet.demos import store
from vqbet.demos.validation import validate
from vqbet.demos.validation.knowledge import Knowledge
from vqbet.evaluation import evidence, gate
from vqbet.evaluation.plan import Plan
from vqbet.files import canonical
from vqbet.registry import chain
from vqbet.stages import artifacts
from vqbet.training import checkpoint
from vqbet.training.checkpoint import Checkpoint

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "files.json"
TRICKY = {"b": [1, 2.5, 1e-300, -0.0, True, None], "a": {"ä": 'Größe \u2028 "quoted"', "2": 2, "10": 1e22}, "e": []}
PLAN = point.planned()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tree(folder: Path) -> str:
    """One hash over the names and bytes of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder).as_posix()} {sha256(path.read_bytes())}\n" for path in files]
    return sha256("".join(lines).encode())


def files(folder: Path) -> dict[str, str]:
    """Everything this project writes whole, written once into an empty folder."""
    return {
        "store": store.write(folder / "demo.zarr", synthetic(3, seed=1)),
        "store's files": tree(folder / "demo.zarr"),
        "bundle": write_bundle(folder / "policy"),
        "bundle's files": tree(folder / "policy"),
        "plan": PLAN.sha256,
        "evidence": evidence.pack(
            folder / "store", gate_folder.made(PLAN, point.played, folder / "gate"), gate_folder.FACTS
        ),
        "evidence's files": tree(folder / "store"),
        "canonical": sha256(canonical.line(TRICKY).encode()),
        "document": sha256(canonical.document(TRICKY).encode()),
        "artifacts": artefacts(folder / "artifacts"),
        "validation": validation(folder / "validation"),
        "checkpoint": checkpoints(folder / "checkpoints"),
        "links": links(folder),
    }


def artefacts(folder: Path) -> str:
    artifacts.write_json(folder / "tricky.json", TRICKY)
    artifacts.write_curves(folder / "curves.csv", [{"step": step, "loss": 1 / step} for step in (1.0, 2.0, 3.0)])
    return tree(folder)


def validation(folder: Path) -> str:
    bounds = {"min_steps": 40, "max_steps": 50, "max_saturated": 0.05, "max_duplicates": 0.01, "min_success": 0.9}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "_expect", lambda measured: [])
        validate.write(validate.validate(synthetic(), Knowledge(), **bounds), folder)
    return sha256((folder / "report.json").read_bytes())


def checkpoints(folder: Path) -> str:
    state = {"rows": [[0.1, 2.0]], "names": ["loss", "größe"], "done": 3}
    checkpoint.save(folder, "key", Checkpoint(3, state, {"weight": torch.arange(6.0).reshape(2, 3)}))
    return tree(folder / "step-0000000003")


def links(folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("VQBET_LEDGER", f"sqlite:///{folder / 'ledger.db'}")
        patch.delenv("VQBET_KEY", raising=False)
        patch.chdir(folder)
        first = chain.append("blockpush", {"digest": "d" * 64, "by": "Größe", "gate": "anything"}, [])
        second = chain.append("blockpush", {"digest": "e" * 64, "version": 2}, [first])
    return str(second["hash"])


def verdicts() -> dict[str, str]:
    """Verdicts about made episodes: every question, stopping rule and outcome."""
    return {name: f"{v.outcome} {sha256(canonical.document(v.to_json()).encode())}" for name, v in judged()}


def judged() -> Iterator[tuple[str, gate.Verdict]]:
    for stopping, looks in (("fixed", (120,)), ("group_sequential", (40, 80, 120)), ("anytime", (40, 80, 120))):
        for question in ("better", "not_worse"):
            base = replace(PLAN, looks=looks, stopping=stopping, question=question, attempt=2, retrained=(0.5, 0.6))
            for name, plan, better in (
                ("better", base, 0.3),
                ("a little", base, 0.03),
                ("worse", base, -0.2),
                ("alone", replace(base, champion=""), 0.3),
                ("successes", replace(base, metric="success"), 0.4),
            ):
                yield f"{stopping} {question} {name}", decided(plan, better)
    yield "same", gate.decide(replace(PLAN, champion=PLAN.candidate), {})


def decided(plan: Plan, better: float) -> gate.Verdict:
    """The verdict of the first look that decides."""
    random = np.random.default_rng(7)
    theirs = np.round(random.beta(2, 2, plan.most), 3)
    mine = np.clip(np.round(theirs + better + random.normal(scale=0.1, size=plan.most), 3), 0, 1)
    if plan.metric == "success":
        mine, theirs = (mine > 0.5).astype(float), (theirs > 0.5).astype(float)
    scores = {"candidate": mine, "champion": theirs, "noop": np.zeros(plan.most)}
    names = ("candidate", *(("champion",) if plan.champion else ()), *plan.baselines)
    for look in plan.looks:
        arms: dict[str, list[EpisodeRecord]] = {name: point.played(plan, name, scores[name][:look]) for name in names}
        verdict = gate.decide(plan, arms)
        if verdict.outcome != "HOLD":
            break
    return verdict


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["files", pytest.param("verdicts", marks=pytest.mark.slow)])
def test_bytes_are_the_golden_ones(kind: str, golden: dict[str, Any], tmp_path: Path) -> None:
    make: dict[str, Callable[[], dict[str, str]]] = {"files": lambda: files(tmp_path), "verdicts": verdicts}
    assert make[kind]() == golden[kind]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        found = {"files": files(Path(scratch)), "verdicts": verdicts()}
    GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
