"""A task that cannot be simulated goes through the graph, is registered, and waits for trials on the robot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.judging import SECTIONS, TASK, params
from tests.support.project import Project
from vqbet import registry, versions
from vqbet.commands import release, summary
from vqbet.commands.trials import planning
from vqbet.commands.trials.planning import TrialsAsked
from vqbet.contract import ConfigError, GateError
from vqbet.demos import store
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.stages import preflight, runner, sealing
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import TASKS
from vqbet.tasks.blockpush.oracle import demonstrations

pytestmark = pytest.mark.slow
TRAINED = ("validate", "tokenizer", "features", "prior", "bundle")
PLAYED = ("evaluate", "gate", "report")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project that asks for robot evidence, up to its policy."""
    root = tmp_path_factory.mktemp("robot") / "project"
    project = Project(root)
    project.small(sections={**SECTIONS, "gate": {**SECTIONS["gate"], "evidence": ["robot"]}})
    project.commit()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / '.vqbet' / 'mlflow.db'}")
        patch.setenv("VQBET_HOME", str(root / ".vqbet"))
        patch.delenv("DVC_SITE_CACHE_DIR", raising=False)
        store.write(Paths(root, TASK).store, demonstrations(6, 0))
        versions.add(root)
        for name in TRAINED:
            runner.run(root, TASK, name, params(root), Watch())
        yield root


@pytest.fixture
def worldless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS._rows, TASK, "tests.support.worldless:TASK")  # type: ignore[index]


def play(root: Path) -> None:
    """Run the last stages, each without its earlier outputs, as DVC does it."""
    paths = Paths(root, TASK)
    for folder in (paths.evaluation, paths.gate, paths.report):
        shutil.rmtree(folder, ignore_errors=True)
    for name in PLAYED:
        runner.run(root, TASK, name, params(root), Watch())


def test_without_a_world_nothing_is_played_and_nothing_promoted(trained: Path, worldless: None) -> None:
    preflight.refuse(Paths(trained, TASK), params(trained))
    play(trained)
    paths = Paths(trained, TASK)
    verdict = json.loads((paths.gate / "verdict.json").read_text())
    assert (verdict["outcome"], verdict["reason"], verdict["episodes"]) == ("NOT_COMPARABLE", sealing.UNPLAYED, 0)
    assert not (paths.gate / "records.jsonl").exists()
    assert json.loads((paths.evaluation / "unplayed.json").read_text())["why"].startswith("the task has no world")
    assert not (paths.evaluation / "records.jsonl").exists()
    page = (paths.report / "index.html").read_text()
    assert sealing.UNPLAYED in page
    assert registry.Attempts(TASK).all == [], "nothing was attempted, so nothing is sealed"
    rows = summary.rows(trained, TASK, [])
    assert rows["verdict"] == f"NOT_COMPARABLE: {sealing.UNPLAYED}"
    assert "modes" not in rows

    done = release.register(trained, TASK)
    assert done["policy"] == f"{TASK}/1"
    assert registry.resolve(f"{TASK}@{registry.CANDIDATE}").digest == done["digest"]
    with pytest.raises(GateError, match="asks for robot evidence, and no session about candidate"):
        release.promote(trained, TASK, candidate=0, why="w", watch=Watch())

    table = planning.run(trained, TASK, TrialsAsked(), Watch())
    plan = TrialPlan.read(Path(table["folder"].split(",")[0]) / "plan.json")
    assert plan.judged.candidate == done["digest"]
    assert [one.picture for one in plan.conditions] == [""] * plan.pairs


def test_with_a_world_the_policy_is_shown_and_the_gate_plays_nothing(trained: Path) -> None:
    play(trained)
    paths = Paths(trained, TASK)
    assert len((paths.evaluation / "records.jsonl").read_text().splitlines()) == 3
    assert not (paths.evaluation / "unplayed.json").exists()
    assert json.loads((paths.gate / "verdict.json").read_text())["reason"] == sealing.UNPLAYED
    assert not (paths.gate / "records.jsonl").exists()
    assert sealing.UNPLAYED in (paths.report / "index.html").read_text()


def test_without_a_world_simulated_evidence_cannot_be_asked_for(trained: Path, worldless: None) -> None:
    asked = params(trained)
    both = asked.model_copy(update={"gate": asked.gate.model_copy(update={"evidence": ["simulated", "robot"]})})
    with pytest.raises(ConfigError, match=r'gate\.evidence: the task has no world to simulate; set it to \["robot"\]'):
        preflight.refuse(Paths(trained, TASK), both)
