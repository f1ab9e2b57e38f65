"""Judged episodes are played again before a promotion, and one record that is not what was played stops it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.judging import TASK, forge
from vqbet import environment, registry
from vqbet.commands import recheck
from vqbet.contract import EpisodeRecord, GateError
from vqbet.demos import store
from vqbet.evaluation import records
from vqbet.evaluation.plan import Plan
from vqbet.stages import sealing, verdicts
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks.blockpush.oracle import demonstrations


@pytest.fixture
def root(judged_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy with a registry of its own."""
    copy = shutil.copytree(judged_once, tmp_path / "copy", symlinks=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy / '.vqbet' / 'mlflow.db'}")
    return copy


def proof(root: Path) -> str:
    return sealing.sealed(root, TASK)[0]


def test_what_was_judged_plays_again(root: Path) -> None:
    """Beside other demonstrations by now: those that were judged come out of their version."""
    found = proof(root)
    said = recheck.run(root, TASK, found, Watch())
    count = int(said.split()[0])
    assert 8 <= count <= 32
    assert said == f"{count} of 32 records played again, bit for bit the same"
    store.write(Paths(root, TASK).store, demonstrations(5, 3))
    assert recheck.run(root, TASK, found, Watch()).endswith("bit for bit the same")
    assert not list((root / ".vqbet").glob("recheck-*"))


def test_records_that_nobody_played_are_refused(root: Path) -> None:
    """Forged with care: they fit the plan, and were packed and sealed as a gate does it."""
    paths = Paths(root, TASK)
    assert forge(paths.gate).outcome == "PROMOTE"
    packed, verdict = verdicts.pack(root, TASK)
    plan = Plan.read(paths.gate / "plan.json")
    registry.Attempts(TASK).seal_verdict(plan.sha256, outcome=verdict.outcome, episodes=8, evidence=packed)
    assert sealing.sealed(root, TASK)[0] == packed, "the seal alone is no proof against who writes the registry"
    with pytest.raises(GateError, match=r"candidate on seed 200000\d does not play as recorded: .*score 1.0, now 0"):
        recheck.run(root, TASK, packed, Watch())


def test_another_kind_of_machine_says_that_it_cannot(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the verdict counts where a key that may judge has signed it, and nowhere else."""
    found = proof(root)
    monkeypatch.setattr(environment, "machine", lambda: "another, 4 cores")
    assert recheck.run(root, TASK, found, Watch()) == ""
    assert registry.Attempts(TASK).judge(found) == registry.UNSIGNED


class TestDraw:
    @pytest.fixture
    def plan(self, root: Path) -> Plan:
        return replace(Plan.read(Paths(root, TASK).gate / "plan.json"), looks=(300, 600), champion="d" * 64)

    @pytest.fixture
    def judged(self, root: Path, plan: Plan) -> list[EpisodeRecord]:
        """One record an episode and arm, of 300 episodes, of which only name and seed matter here."""
        base = records.read(Paths(root, TASK).gate / "records.jsonl")[0]
        arms = ("candidate", "champion", "noop")
        return [replace(base, policy=arm, seed=plan.first_seed + number) for arm in arms for number in range(300)]

    def test_eight_episodes_and_all_who_played_with_them(self, plan: Plan, judged: list[EpisodeRecord]) -> None:
        found = recheck.draw(plan, judged, {})
        by_arm = {arm: [job for job in found if job.label.policy == arm] for arm in ("candidate", "champion", "noop")}
        assert [1 <= len(by_arm[arm]) <= 4 for arm in ("candidate", "champion")] == [True, True]
        assert len(by_arm["noop"]) == 1
        assert sum(len(job.seeds) for job in found if job.label.policy != "noop") >= recheck.DRAWN
        assert all(len(job.seeds) <= 100 for job in found)

    def test_every_episode_can_be_drawn_and_none_is_sure_to_be(self, plan: Plan, judged: list[EpisodeRecord]) -> None:
        counts = np.zeros(300)
        for _ in range(60):
            for job in recheck.draw(plan, judged, {}):
                if job.label.policy == "candidate":
                    counts[np.array(job.seeds) - plan.first_seed] += 1
        assert counts.min() > 0
        assert counts.max() < 60

    def test_only_looks_that_were_played(self, plan: Plan, judged: list[EpisodeRecord]) -> None:
        seeds = {seed for _ in range(20) for job in recheck.draw(plan, judged, {}) for seed in job.seeds}
        assert max(seeds) < plan.first_seed + 300
