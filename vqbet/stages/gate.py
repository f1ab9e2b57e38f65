"""Stage: fix the plan, play candidate, champion and baselines on its seeds, here and now, until a look decides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet import bundle, environment, playable
from vqbet.contract import Demonstrations, EpisodeRecord, Policy
from vqbet.demos import store
from vqbet.evaluation import evidence, gate, records, video
from vqbet.evaluation.gate import Verdict
from vqbet.evaluation.plan import Plan, Slice, spec_sha256
from vqbet.evaluation.rollout import Label
from vqbet.stages import blessing, evaluate, files
from vqbet.stages.paths import Paths
from vqbet.stages.watch import Watch

if TYPE_CHECKING:
    from vqbet.config import TaskParams

WORST = 3  # episodes that are filmed


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    """Candidate and champion are where the runner has put them, both from the registry."""
    demos = store.read(paths.store)
    candidate = bundle.read(paths.scratch("candidate"))
    blessed = blessing.bless(paths.scratch("candidate"), candidate.digest, demos, budget_ms=params.gate.latency_ms)
    files.write_json(paths.blessing(candidate.digest), blessed.to_json())
    watch.say(f"{blessed.calls} calls in a clean process give the same actions; {blessed.latency_ms} ms a call (p99)")
    policies = _policies(paths, params, demos)
    world = evaluate.world_name(paths.task, asked=bool(policies["candidate"][0].goal))
    plan = make_plan(world, params, demos, {name: digest for name, (_, digest) in policies.items()})
    evidence.used_seeds(paths.verdicts, plan)
    plan.write(paths.gate / "plan.json")
    verdict = _decided(paths, plan, {name: policy for name, (policy, _) in policies.items()}, demos, watch)
    _film(paths, plan, {name: policy for name, (policy, _) in policies.items()}, demos, watch)
    watch.say(f"{verdict.outcome}: {verdict.reason}")
    metrics = {
        "promote": float(verdict.outcome == "PROMOTE"),
        "episodes": float(verdict.episodes),
        "more_episodes": float(verdict.more_episodes),
        "checks": float(len(verdict.checks)),
        "checks_passed": float(sum(check.passed for check in verdict.checks)),
    }
    files.write_json(paths.metrics("gate"), metrics)
    return metrics


def make_plan(world: str, params: TaskParams, demos: Demonstrations, digests: Mapping[str, str]) -> Plan:
    """The comparison, before any episode of it was played. Raises GateError where the parameters do not fit together.

    digests: of "candidate" and, where there is one, "champion".
    """
    chosen, most = params.gate, params.gate.looks[-1]
    named = {name: getattr(chosen, name) for name in ("metric", "question", "margin", "alpha", "power", "floor")}
    return Plan(
        task=demos.spec.task,
        world=world,
        spec=spec_sha256(demos.spec),
        candidate=digests["candidate"],
        champion=digests.get("champion", ""),
        machine=environment.machine(),
        first_seed=chosen.first_seed,
        looks=tuple(chosen.looks),
        reserved={
            "demonstrations": _span(params.demos.seed, params.demos.episodes),
            "selection": _span(params.evaluate.first_seed, params.evaluate.episodes),
            "audit": _span(chosen.audit_seed, most),
        },
        slices=tuple(Slice(name, **part.model_dump()) for name, part in chosen.slices.items()),
        stopping=chosen.stopping,
        min_modes=chosen.min_modes,
        baselines=tuple(chosen.baselines),
        **named,
    )


def _decided(paths: Paths, plan: Plan, policies: Mapping[str, Policy], demos: Demonstrations, watch: Watch) -> Verdict:
    """Play from look to look until one decides; what was played is on disk after each of them."""
    played: list[EpisodeRecord] = []
    verdict = gate.decide(plan, {})  # NOT_COMPARABLE
    first = plan.first_seed
    for look in plan.looks if plan.candidate != plan.champion else ():
        for name, policy in policies.items():
            played += _play(plan, name, policy, range(first, plan.first_seed + look), demos, watch)
        records.write(paths.gate / "records.jsonl", played)
        verdict = gate.decide(plan, gate.by_policy(played))
        if verdict.outcome != "HOLD":
            break
        first = plan.first_seed + look
        watch.say(f"after {look} episodes: {verdict.reason}")
    gate.write(paths.gate / "verdict.json", verdict)
    return gate.replay(paths.gate)


def _film(paths: Paths, plan: Plan, policies: Mapping[str, Policy], demos: Demonstrations, watch: Watch) -> None:
    """The seeds on which the candidate did worst, played again by it and the champion for people to look at."""
    if plan.candidate == plan.champion:
        return
    played = gate.by_policy(records.read(paths.gate / "records.jsonl"))
    others = {record.seed: record.score for record in played.get("champion", ())}
    worst = sorted(played["candidate"], key=lambda record: (record.score - others.get(record.seed, 1.0), record.seed))
    for record in worst[:WORST]:
        part = next(part for part in plan.slices if part.name == record.slice)
        for name in ("candidate", "champion") if others else ("candidate",):
            label = Label(plan.world, name, "", evaluate.UNPLANNED, plan.machine)
            again = evaluate.play(label, policies[name], [record.seed], demos, watch, within=part, film=[0])
            video.write(paths.gate / "films" / f"{name}-{record.seed}.webm", again.films[0].frames, again.films[0].fps)


def _play(
    plan: Plan, name: str, policy: Policy, seeds: range, demos: Demonstrations, watch: Watch
) -> list[EpisodeRecord]:
    """One arm's episodes of one look, each under the conditions of its slice, in the order of their seeds."""
    digest = {"candidate": plan.candidate, "champion": plan.champion}.get(name, "")
    label = Label(plan.world, name, digest, plan.sha256, plan.machine)
    found: list[EpisodeRecord] = []
    for part in plan.slices:
        own = [seed for seed in seeds if plan.slice_of(seed) == part]
        if own:
            found += evaluate.play(label, policy, own, demos, watch, within=part).records
    return sorted(found, key=lambda record: record.seed)


def _policies(paths: Paths, params: TaskParams, demos: Demonstrations) -> dict[str, tuple[Policy, str]]:
    """The arms by name, each with the digest of its bundle, in the order in which they play."""
    found: dict[str, tuple[Policy, str]] = {"candidate": _loaded(paths.scratch("candidate"), demos)}
    champion = paths.scratch("champion")
    if champion.is_dir():
        found["champion"] = _loaded(champion, demos)
    return found | {name: (evaluate.baseline(name, demos), "") for name in params.gate.baselines}


def _loaded(folder: Path, demos: Demonstrations) -> tuple[Policy, str]:
    policy, packed = playable.load(folder)
    bundle.expect(packed, demos.spec)
    return policy, packed.digest


def _span(first: int, count: int) -> tuple[int, int]:
    return first, first + count
