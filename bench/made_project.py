"""Project with the outputs of every stage of one task, made without training, and a stand-in registry."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from tests.support.point import planned
from tests.support.synthetic import synthetic
from vqbet import bundle
from vqbet.commands import release, summary
from vqbet.contract import Demonstrations, EpisodeRecord
from vqbet.demos import store
from vqbet.demos.windows import complete_chunks
from vqbet.evaluation import gate, records
from vqbet.evaluation.plan import Plan, Slice, spec_sha256
from vqbet.models.normalizer import Normalizer
from vqbet.models.prior import Prior, PriorShape
from vqbet.models.tokenizer import Tokenizer, TokenizerShape
from vqbet.policies.actor import Actor
from vqbet.policies.vqbet import VQBeT
from vqbet.registry import Attempt, Version
from vqbet.stages import artifacts, report, retraining_history, verdicts
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

TASK, EPISODES = "synthetic", 12
METRICS = {
    "validate": {"episodes": 4.0, "steps": 180.0, "errors": 0.0, "advice": 0.0},
    "tokenizer": {"mean_error_over_std": 0.1, "codes_used_0": 8.0, "codes_used_1": 8.0},
    "prior": {"loss": 0.5},
    "bundle": {"parameters": 1000.0},
    "evaluate": {
        **{"episodes": 12.0, "score": 0.5, "score_low": 0.4, "score_high": 0.6, "modes": 2.0},
        **{"mode_entropy_bits": 1.0, "success": 0.5, "steps": 10.0},
    },
    "gate": {"promote": 1.0, "episodes": 12.0},
    "report": {"episodes": 12.0},
}
HEALTH = {"usage": [[3, 4], [5, 2]], "mean_error_over_std": [0.1, 0.2], "codes_used": [2, 2]}


@dataclass
class Made:
    """Project at `root`. files: files that may be mutated and that `restore` resets."""

    root: Path
    sealed: Attempt
    files: list[Path] = field(default_factory=list)
    kept: dict[Path, bytes] = field(default_factory=dict)

    def restore(self) -> None:
        """Reset every file, and remove all packed verdicts except the sealed one."""
        for path, content in self.kept.items():
            if not path.is_file() or path.read_bytes() != content:
                path.write_bytes(content)
        for folder in Paths(self.root, TASK).verdicts.glob("*"):
            if folder.name != self.sealed.evidence:
                shutil.rmtree(folder)

    def use(self, changed: Path) -> None:
        """Run everything that reads the files after the graph; the report only if `changed` may affect it."""
        paths = Paths(self.root, TASK)
        if (
            "report" in changed.parts
            or changed.parent.name in ("gate", "policy", "evaluation")
            or changed == paths.health
        ):
            report.run(paths, None, Watch())  # type: ignore[arg-type]  # its parameters are not used
        summary.rows(self.root, TASK, ran=[])
        retraining_history.played(paths, bundle.read(paths.policy))
        release.register(self.root, TASK)
        list(retraining_history.judged(self.root, TASK))


@dataclass(frozen=True)
class Sealed:
    """Stand-in for the attempts of a registry with one sealed verdict."""

    one: Attempt

    def of(self, candidate: str) -> list[Attempt]:
        return [self.one] if candidate == self.one.candidate else []

    def under(self, plan: str) -> Attempt | None:
        return self.one if plan == self.one.plan else None


@contextmanager
def standing_in(root: Path) -> Iterator[Made]:
    """Make the project at `root`; inside the block the registry accepts everything and git has no commit."""
    made = _sealed(root, _made(root))
    stand_ins: dict[str, Any] = {
        "vqbet.registry.check": lambda: None,
        "vqbet.registry.champion": lambda task: Version(TASK, 1, "d" * 64),
        "vqbet.registry.Attempts": lambda task: Sealed(made.sealed),
        "vqbet.registry.attach": lambda *_: None,
        "vqbet.versions.unmade": lambda root, stages: [],
        "vqbet.registry.register": lambda *_, **__: 2,
        "vqbet.registry.set_candidate": lambda *_: None,
        "vqbet.versions.data_version": lambda root: "0" * 32 + ".dir",
        "vqbet.versions.git_commit": lambda root: "",
        "vqbet.versions.as_committed": lambda root, name: None,
    }
    with ExitStack() as stack:
        for name, stand_in in stand_ins.items():
            stack.enter_context(patch(name, stand_in))
        yield made


def _sealed(root: Path, texts: list[Path]) -> Made:
    """Pack the verdict, and keep the content of the files that may be mutated."""
    paths = Paths(root, TASK)
    with patch("vqbet.versions.data_version", lambda root: "0" * 32 + ".dir"):
        proof, verdict = verdicts.pack(root, TASK)
    plan = Plan.read(paths.gate / "plan.json")
    sealed = Attempt(
        plan.candidate,
        plan.sha256,
        plan.to_json(),
        who="ann",
        when="2026-05-01T14:30:00+00:00",
        outcome=verdict.outcome,
        episodes=EPISODES,
        evidence=proof,
    )
    return Made(root, sealed, texts, {path: path.read_bytes() for path in texts})


def _made(root: Path) -> list[Path]:
    paths, demos = Paths(root, TASK), synthetic(4)
    store.write(paths.store, demos)
    digest = _policies(paths, demos)
    for name, values in METRICS.items():
        artifacts.write_json(paths.metrics(name), values)
        artifacts.write_json(paths.scratch("seconds") / f"{name}.json", 1.5)
    artifacts.write_json(paths.health, HEALTH)
    artifacts.write_json(paths.rehearsal(digest), {"digest": digest, "machine": "this", "calls": 1, "latency_ms": 1.0})
    for name in ("tokenizer", "prior"):
        artifacts.write_curves(paths.plot(name), [{"step": step, "loss": 1 / step} for step in (1.0, 2.0, 3.0)])
    plan = _plan(demos, digest)
    played = [_record(plan, policy, seed) for policy in ("candidate", "noop") for seed in plan.seeds]
    plan.write(paths.gate / "plan.json")
    records.write(paths.gate / "records.jsonl", played)
    gate.write(paths.gate / "verdict.json", gate.decide(plan, gate.by_policy(played)))
    evaluated = [_record(plan, "candidate", seed) for seed in range(1000, 1000 + EPISODES)]
    records.write(paths.evaluation / "records.jsonl", evaluated)
    found = [path for place in ("artifacts", ".vqbet") for path in sorted((root / place).rglob("*")) if path.is_file()]
    return [path for path in found if path.suffix in (".json", ".jsonl", ".csv")]


def _policies(paths: Paths, demos: Demonstrations) -> str:
    """Write bundles of a k-means tokenizer and an untrained policy; return the policy's digest."""
    torch.manual_seed(0)
    shape = TokenizerShape(chunk=3, layers=2, codes=8, latent=8, hidden=8, kind="kmeans")
    tokenizer = Tokenizer(Normalizer.fit(demos.action, demos.spec.action), shape)
    tokenizer.initialise(complete_chunks(demos, 3), torch.Generator().manual_seed(0))
    small = PriorShape(window=1, depth=1, heads=1, width=8, head_hidden=8, dropout=0.0, sequential=False)
    observed = Normalizer.fit(demos.observation, demos.spec.observation)
    actor = Actor(demos.spec, VQBeT(Prior(tokenizer.eval(), observed, small)), execute="first")
    provenance = {"code": "0" * 64, "data": "1" * 64, "tokenizer": "2" * 64, "params": {"prior": {"seed": 0}}}
    made = ((paths.tokenizer, "tokenizer", tokenizer), (paths.policy, "vqbet", actor))
    return [
        bundle.write(
            folder,
            kind=kind,
            spec=demos.spec,
            arguments=one.arguments(),
            components=one.components(),
            provenance=provenance,
        )
        for folder, kind, one in made
    ][-1]


def _plan(demos: Demonstrations, digest: str) -> Plan:
    return replace(
        planned(),
        task=TASK,
        world=TASK,
        spec=spec_sha256(demos.spec),
        candidate=digest,
        champion="",
        first_seed=2000,
        looks=(EPISODES,),
        reserved={"selection": (1000, 1000 + EPISODES)},
        slices=(Slice("undisturbed", 1.0),),
        floor=0.1,
        min_modes=0,
    )


def _record(plan: Plan, policy: str, seed: int) -> EpisodeRecord:
    good = policy == "candidate"
    return EpisodeRecord(
        world=TASK,
        policy=policy,
        digest=plan.candidate if good else "",
        plan=plan.sha256,
        seed=seed,
        steps=10,
        success=good,
        score=float(np.clip(0.8 * good + 0.01 * (seed % 7), 0, 1)),
        mode=("left", "right")[seed % 2],
        slice="undisturbed",
        machine=plan.machine,
        metrics={"distance_m": 0.5},
    )
