"""A project with two registered policies whose candidate needs robot trials; sessions are run without a robot.

`made(root)` takes seconds, so a module makes one and each test takes a copy: `copied`. The policies are untrained
ones of the task "synthetic" under the name of BlockPush.
Commands, registry, ledger, git and signatures are the real ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from tests.support import people, trials, untrained
from tests.support.point import played
from tests.support.synthetic import synthetic
from tests.support.trials import Bench, Outcome, by_arm
from vqbet import environment, registry
from vqbet.commands import bounds, release
from vqbet.commands.trials import judge, planning, sessions
from vqbet.commands.trials.planning import TrialsAsked
from vqbet.evaluation import evidence, gate, records
from vqbet.evaluation.plan import Plan, Slice, spec_sha256
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

TASK, ROBOT = "blockpush", "arm 1"
BETTER = by_arm({"candidate": "done", "champion": "touched"})
WORSE = by_arm({"candidate": "nothing", "champion": "done"})
LISTED = [{"name": "left", "text": "block to the left"}, {"name": "right"}, {"name": "far"}]
TRIALS = {
    "looks": [4, 8, 12],
    "block": 2,
    "margin": 0.4,
    "alpha": 0.2,
    "floor": 0.1,
    "rubric": {"nothing": 0.0, "touched": 0.5, "done": 1.0},
    "tags": ["dropped", "missed"],
    "invalid": ["robot fault", "wrong condition"],
    "most_invalid": 0.4,
    "timeout_s": 60.0,
    "conditions": LISTED,
}
GATE = {
    "min_modes": 0,
    "evidence": ["robot"],
    "looks": [60],
    "stopping": "fixed",
    "metric": "success",
    "margin": 0.2,
    "floor": 0.5,
}
DATA = f"{'d' * 32}.dir"
SPEC = synthetic(1).spec


@dataclass
class Lab:
    """A project. candidate, champion: digests; champion: "" for none."""

    root: Path
    candidate: str
    champion: str

    def edit(self, commit: bool = True, **sections: Mapping[str, object]) -> None:
        """Change the task's parameters, by section."""
        yaml, path = YAML(), self.root / "params.yaml"
        content = yaml.load(path.read_text(encoding="utf-8"))
        for name, values in sections.items():
            content[TASK][name].update(values)
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(content, file)
        if commit:
            people.commit(self.root)

    def register(self, head_hidden: int, number: int = 0) -> str:
        """Register another policy; return its digest. The aliases stay."""
        folder = self.root / ".vqbet" / f"policy-{head_hidden}"
        _, digest = untrained.written(folder, synthetic(4), head_hidden=head_hidden)
        registry.register(TASK, folder, tags={"digest": digest}, spec=SPEC)
        return digest

    def plan(self, **asked: Any) -> dict[str, str]:
        """Lock a plan for the server's key of tests; return its table."""
        said = {"robot": ROBOT, "server_key": trials.key().public, **asked}
        return planning.run(self.root, TASK, TrialsAsked(**said), Watch())

    @property
    def planned(self) -> TrialPlan:
        """The newest plan."""
        return TrialPlan.read(self.session.plan)

    @property
    def session(self) -> TrialFolder:
        """The folder of the newest plan."""
        return sessions.states(self.root, TASK)[-1].folder

    def bench(self) -> Bench:
        """Open the newest session."""
        folder = self.session
        return Bench(folder.path, TrialPlan.read(folder.plan), salt=bytes.fromhex(folder.salt.read_text()))

    def play(self, outcome: Outcome = BETTER) -> None:
        """Plan nothing, and run the newest session to its end."""
        bench = self.bench()
        bench.play(outcome)
        bench.session.log.close()

    def judge(self, **asked: Any) -> dict[str, str]:
        return judge.run(self.root, TASK, asked.get("plan", ""), asked.get("recordings"), Watch())

    def promote(self) -> dict[str, str]:
        return release.promote(self.root, TASK, candidate=0, why="better on arm 1", watch=Watch())

    def simulate(self, *, better: bool = True, number: int = 1, **about: str) -> str:
        """Seal a simulated verdict on records that nobody played; return its evidence. about: digests."""
        params, digests = bounds.committed(self.root, TASK), {"candidate": self.candidate, "champion": self.champion}
        asked, digests = params.gate, digests | about
        names = ("metric", "question", "margin", "alpha", "power", "floor", "stopping", "min_modes")
        plan = Plan(
            task=TASK,
            world=TASK,
            spec=spec_sha256(SPEC),
            machine="",
            first_seed=asked.first_seed + 1000 * (number - 1),
            looks=tuple(asked.looks),
            reserved={},
            slices=tuple(Slice(name, **part.model_dump()) for name, part in asked.slices.items()),
            baselines=tuple(asked.baselines),
            attempt=number,
            **digests,
            **{name: getattr(asked, name) for name in names},
        )
        folder = self.root / ".vqbet" / f"gate-{number}"
        folder.mkdir()
        chances = {"candidate": 0.95 if better else 0.3, "champion": 0.6}
        arms = {name: _played(plan, name, chances.get(name, 0.0), digests) for name in self._arms(plan)}
        plan.write(folder / "plan.json")
        records.write(folder / "records.jsonl", [record for arm in arms.values() for record in arm])
        verdict = gate.decide(plan, arms)
        gate.write(folder / "verdict.json", verdict)
        assert (verdict.outcome == "PROMOTE") == better, verdict.reason
        facts = {"machine": environment.machine(), "store": "0" * 64, "data_version": DATA}
        proof = evidence.pack(Paths(self.root, TASK).verdicts, {p.name: p for p in folder.iterdir()}, facts)
        registry.Attempts(TASK).seal_plan(plan.candidate, plan.sha256, plan.to_json())
        registry.Attempts(TASK).seal_verdict(
            plan.sha256, outcome=verdict.outcome, episodes=verdict.episodes, evidence=proof
        )
        return proof

    @staticmethod
    def _arms(plan: Plan) -> list[str]:
        return ["candidate", *(["champion"] if plan.champion else []), *plan.baselines]


def _played(plan: Plan, name: str, chance: float, digests: Mapping[str, str]) -> list[Any]:
    random = np.random.default_rng(len(name))
    scores = (random.uniform(size=plan.most) < chance).astype(float)
    return played(plan, name, list(scores), digest=digests.get(name, ""))


def made(root: Path, *, champion: bool = True) -> None:
    """Make the project; the environment must be that of `entered`."""
    people.repository(root)
    (root / "data.dvc").write_text(f"outs:\n- md5: {DATA}\n  nfiles: 1\n  size: 1\n  hash: md5\n  path: data\n")
    lab = Lab(root, "", "")
    lab.edit(gate=GATE, trials=TRIALS)
    first = lab.register(16)
    registry.set_candidate(TASK, 1)
    if champion:
        registry.force(TASK, 1, who="ann", why="the first one")
        lab.register(24)
        registry.set_candidate(TASK, 2)
    (root / ".vqbet" / "lab").write_text(first)


def entered(root: Path, patch: pytest.MonkeyPatch) -> Lab:
    """Set the environment for the project at `root`, and return it."""
    for name in ("VQBET_KEY", "VQBET_LEDGER", "VQBET_STORAGE"):
        patch.delenv(name, raising=False)
    for name, value in {**environment.SILENCE, **environment.embedded(root), "VQBET_PROJECT": str(root)}.items():
        patch.setenv(name, value)
    root.mkdir(parents=True, exist_ok=True)
    patch.chdir(root)
    if not (root / ".vqbet" / "lab").exists():
        return Lab(root, "", "")
    candidate, champion = registry.resolve(f"{TASK}@{registry.CANDIDATE}"), registry.champion(TASK)
    return Lab(root, candidate.digest, champion.digest if champion else "")


def copied(base: Path, root: Path, patch: pytest.MonkeyPatch) -> Lab:
    """Return a copy of a project at `root`, with a registry of its own."""
    shutil.copytree(base, root, symlinks=True)
    return entered(root, patch)


def make(base: Path, **options: bool) -> Callable[[], Path]:
    """Return what makes a project at `base` in an environment that is put back."""

    def build() -> Path:
        with pytest.MonkeyPatch.context() as patch:
            entered(base, patch)
            made(base, **options)
        return base

    return build
