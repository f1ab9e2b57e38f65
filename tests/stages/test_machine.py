"""What a stage puts out is the same on every machine that computes the same numbers; what names the machine is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.judging import TASK, judged, params
from vqbet import environment, registry
from vqbet.environment import processes
from vqbet.evaluation import gate as rules
from vqbet.evaluation import pool, records
from vqbet.evaluation.plan import Plan
from vqbet.evaluation.pool import Assignment, RolloutPool
from vqbet.registry import connection
from vqbet.stages import gate, runner, sealing, verdicts
from vqbet.stages.paths import Paths
from vqbet.stages.players import StorePlayers, here
from vqbet.stages.progress import Watch

pytestmark = pytest.mark.slow
ONE, OTHER = "a processor, 2 cores, Python 3.11.2, torch 2", "the same, 8 cores, Python 3.11.7, torch 2"


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The same policy, evaluated and judged on two machines, each with a registry of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(processes.WORKERS, "1")  # no process is started, which would know what machine this really is
        patch.setattr(environment, "machine", lambda: ONE)
        with judged(tmp_path_factory.mktemp("machine")) as project:
            found = {ONE: project.root, OTHER: project.root.parent / "other"}
            shutil.copytree(found[ONE], found[OTHER], symlinks=True, ignore=shutil.ignore_patterns(".vqbet"))
            runner.run(found[ONE], TASK, "report", params(found[ONE]), Watch())
            patch.setattr(environment, "machine", lambda: OTHER)
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{found[OTHER] / '.vqbet' / 'mlflow.db'}")
            for folder in ("evaluation", "gate"):
                shutil.rmtree(Paths(found[OTHER], TASK).artifacts / folder)
            for name in ("evaluate", "gate", "report"):
                runner.run(found[OTHER], TASK, name, params(found[OTHER]), Watch())
            yield found


@pytest.fixture
def on(homes: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project on machine ONE, with its registry."""
    monkeypatch.setenv(processes.WORKERS, "1")
    monkeypatch.setattr(environment, "machine", lambda: ONE)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{homes[ONE] / '.vqbet' / 'mlflow.db'}")
    return homes[ONE]


def test_outputs_are_the_same_bytes(homes: dict[str, Path]) -> None:
    one, other = (outputs(root) for root in homes.values())
    assert {"gate/plan.json", "gate/records.jsonl", "gate/verdict.json", "evaluation/records.jsonl"} <= set(one)
    assert {"report/index.html", "policy/bundle.json", "validation/index.html"} <= set(one)
    assert [name for name in one if one[name] != other.get(name)] == []
    assert one.keys() == other.keys()
    for content in one.values():
        assert b"Python 3.11" not in content
        assert b"cores" not in content


def outputs(root: Path) -> dict[str, bytes]:
    folder = Paths(root, TASK).artifacts
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_evidence_seal_and_runs_name_the_machine(on: Path) -> None:
    proof, _ = sealing.sealed(on, TASK)
    folder, _ = verdicts.found(on, proof)
    assert json.loads((folder / "facts.json").read_text())["machine"] == ONE
    (attempt,) = registry.Attempts(TASK).all
    assert attempt.content["machine"] == ONE
    client = connection.client()
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert {run.data.tags["machine"] for run in runs if "machine" in run.data.tags} == {ONE}
    assert sum("machine" in run.data.tags for run in runs) == 7
    trained = {"device": "cpu", "precision": "fp32", "compiled": "false", "fused": "true", "processes": "1"}
    for run in runs:
        stage = run.data.tags["stage"]
        assert (run.data.tags.items() >= trained.items()) == (stage in runner.TRAINED), stage


def test_records_name_the_machine_that_played_them(on: Path) -> None:
    plan = Plan.read(Paths(on, TASK).gate / "plan.json")
    job = gate.assignments_of(plan, range(plan.first_seed, plan.first_seed + 1), {})[-1]
    with RolloutPool(StorePlayers(Paths(on, TASK).store)) as place:
        (played,) = place.play("", [job], Watch().bar)
    assert [record.machine for record in played.records] == [ONE]
    assert [here(plan, record).machine for record in played.records] == [""]


def test_a_record_in_a_file_that_names_a_machine_is_refused(on: Path) -> None:
    folder = Paths(on, TASK).gate
    plan, played = Plan.read(folder / "plan.json"), records.read(folder / "records.jsonl")
    assert {record.machine for record in played} == {plan.machine} == {""}
    foreign = [replace(played[0], machine=OTHER), *played[1:]]
    assert rules.decide(plan, rules.by_policy(foreign)).outcome == "NOT_COMPARABLE"


def test_one_episode_from_another_machine_and_nothing_is_compared(on: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a worker that plays elsewhere. The verdict says so, and can be replayed."""
    play = StorePlayers.play

    def elsewhere(players: StorePlayers, job: Assignment, report: pool.Report) -> pool.Play:
        played = play(players, job, report)
        first = [replace(record, machine=OTHER) for record in played.records[:1]]
        return replace(played, records=[*first, *played.records[1:]]) if job.label.policy == "noop" else played

    monkeypatch.setattr(StorePlayers, "play", elsewhere)
    asked = params(on)
    fresh = asked.model_copy(update={"gate": asked.gate.model_copy(update={"first_seed": 2000100})})
    metrics = runner.run(on, TASK, "gate", fresh, Watch())
    verdict = rules.replay(Paths(on, TASK).gate)
    assert (metrics["promote"], verdict.outcome) == (0.0, "NOT_COMPARABLE")
    assert f"noop: seed 2000100 was played on the machine {OTHER!r}" in verdict.reason
