"""Stage: fix the plan, then play candidate, champion and baselines on its seeds until an interim look decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet import bundle, policies
from vqbet.contract import Demonstrations, EpisodeRecord, GateError
from vqbet.demos import store
from vqbet.evaluation import gate, offline_gate, records
from vqbet.evaluation.gate import Verdict
from vqbet.evaluation.plan import Plan, Slice, spec_sha256
from vqbet.evaluation.pool import Assignment, RolloutPool
from vqbet.evaluation.rollout import Label
from vqbet.serving.rehearsal import rehearse
from vqbet.stages import artifacts, films, offline, retraining_history, sealing, worlds
from vqbet.stages.offline import Offline
from vqbet.stages.paths import Paths
from vqbet.stages.players import StorePlayers, here
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.config import TaskParams

SIMULATED = "simulated"  # kind of evidence, as in gate.evidence
TRAINED = CANDIDATE, CHAMPION = "candidate", "champion"  # arms that are bundles


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    """Run the gate on candidate and champion, which the runner has fetched from the registry into scratch folders."""
    demos = store.read(paths.store)
    policy, candidate = policies.load(paths.scratch("candidate"))
    rehearsed = rehearse(paths.scratch("candidate"), candidate.digest, demos, budget_ms=params.gate.latency_ms)
    artifacts.write_json(paths.rehearsal(candidate.digest), rehearsed.to_json())
    watch.say(f"{rehearsed.calls} calls in a clean process, the same actions; {rehearsed.latency_ms} ms a call (p99)")
    world = worlds.name(paths.task, asked=bool(policy.goal), params=params)
    retrained = retraining_history.retrained(paths.root, paths.task, candidate)
    make = partial(make_plan, world, params, demos, _digests(paths), retrained)
    if SIMULATED not in params.gate.evidence:
        simulated = worlds.exists(paths.task, params)
        sets = None if simulated else offline.prepare(policy, demos, offline.learned(candidate.provenance))
        return _unplayed(paths, make(), watch) if sets is None else _held_out(paths, params, demos, sets, watch)
    plan = sealing.plan(paths.task, make)
    plan.write(paths.gate / "plan.json")
    with RolloutPool(StorePlayers(paths.store)) as pool:
        verdict, played = _decided(paths, plan, pool, watch)
        if verdict.outcome != "NOT_COMPARABLE":
            films.worst(paths.gate, plan, pool, [part for part in played if part.label.policy in TRAINED], watch)
    metrics = _metrics(paths, verdict)
    mine = [part for part in played if part.label.policy == CANDIDATE]
    sealing.verdict(paths.root, paths.task, plan, sum(len(part.seeds) for part in mine))
    watch.say(f"{verdict.outcome}: {verdict.reason}")
    return metrics


def _unplayed(paths: Paths, plan: Plan, watch: Watch) -> dict[str, float]:
    """Write the outputs of a gate that plays nothing. The plan is not sealed, since nothing was attempted."""
    plan.write(paths.gate / "plan.json")
    verdict = replace(gate.decide(plan, {}), reason=sealing.UNPLAYED)
    gate.write(paths.gate / "verdict.json", verdict)
    watch.say(f"{verdict.reason}; the rest is for a robot: vqbet trials plan {paths.task}")
    return _metrics(paths, verdict)


def _held_out(paths: Paths, params: TaskParams, demos: Demonstrations, sets: Offline, watch: Watch) -> dict[str, float]:
    """Judge the candidate on the episodes that it has not learned from: it is rejected, or held for the robot."""
    policy, _ = policies.load(paths.scratch(CANDIDATE))
    plan = offline.plan(params, demos, sets, _digests(paths))
    sealing.on_held_out(paths.task, plan)
    plan.write(paths.gate / "plan.json")
    played = offline.recorded(policy, sets, plan)
    records.write(paths.gate / "records.jsonl", played)
    gate.write(paths.gate / "verdict.json", offline_gate.decide(plan, gate.by_policy(played)))
    verdict = gate.replay(paths.gate, offline_gate.decide)
    metrics = _metrics(paths, verdict)
    sealing.verdict(paths.root, paths.task, plan, verdict.episodes)
    watch.say(f"{verdict.outcome}: {verdict.reason}")
    return metrics


def _metrics(paths: Paths, verdict: Verdict) -> dict[str, float]:
    metrics = {
        "promote": float(verdict.outcome == "PROMOTE"),
        "episodes": float(verdict.episodes),
        "more_episodes": float(verdict.more_episodes),
        "checks": float(len(verdict.checks)),
        "checks_passed": float(sum(check.passed for check in verdict.checks)),
    }
    artifacts.write_json(paths.metrics("gate"), metrics)
    return metrics


def make_plan(
    world: str,
    params: TaskParams,
    demos: Demonstrations,
    digests: Mapping[str, str],
    retrained: Sequence[float] = (),
    attempt: int = 1,
) -> Plan:
    """Return the plan of a comparison before any of its episodes is played.

    digests: of "candidate" and, where there is one, "champion". retrained, attempt: see `Plan`. Raises GateError where
    the parameters are inconsistent.
    """
    try:
        return _plan(world, params, demos, digests, retrained, attempt)
    except GateError as error:
        raise GateError(f"{demos.spec.task}.gate: {error}") from error


def _plan(
    world: str,
    params: TaskParams,
    demos: Demonstrations,
    digests: Mapping[str, str],
    retrained: Sequence[float],
    attempt: int,
) -> Plan:
    chosen = params.gate
    named = {name: getattr(chosen, name) for name in ("metric", "question", "margin", "alpha", "power", "floor")}
    return Plan(
        task=demos.spec.task,
        world=world,
        spec=spec_sha256(demos.spec),
        candidate=digests["candidate"],
        champion=digests.get("champion", ""),
        machine="",  # so that the output is the same on every machine
        first_seed=chosen.first_seed,
        looks=tuple(chosen.looks),
        reserved=reserved(params),
        slices=tuple(Slice(name, **part.model_dump()) for name, part in chosen.slices.items()),
        stopping=chosen.stopping,
        min_modes=chosen.min_modes,
        baselines=tuple(chosen.baselines),
        retrained=tuple(retrained),
        attempt=attempt,
        **named,
    )


def _decided(paths: Paths, plan: Plan, pool: RolloutPool, watch: Watch) -> tuple[Verdict, list[Assignment]]:
    """Play from look to look until one decides. The records are written to disk after each look."""
    played: list[EpisodeRecord] = []
    done: list[Assignment] = []
    verdict = gate.decide(plan, {})  # NOT_COMPARABLE
    arms, folders = arms_of(plan), {name: paths.scratch(name) for name in TRAINED}
    first = plan.first_seed
    for look in plan.looks if plan.candidate != plan.champion else ():
        parts = assignments_of(plan, range(first, plan.first_seed + look), folders)
        found = pool.play(f"{plan.world}: {', '.join(arms)}", parts, watch.bar)
        played += [here(plan, record) for play in found for record in play.records]
        played.sort(key=lambda record: (arms.index(record.policy), record.seed))
        done += parts
        records.write(paths.gate / "records.jsonl", played)
        verdict = gate.decide(plan, gate.by_policy(played))
        if verdict.outcome != "HOLD":
            break
        first = plan.first_seed + look
        watch.say(f"after {look} episodes: {verdict.reason}")
    gate.write(paths.gate / "verdict.json", verdict)
    return gate.replay(paths.gate), done


def assignments_of(plan: Plan, seeds: range, folders: Mapping[str, Path]) -> list[Assignment]:
    """Return the assignments of one look: every arm's episodes, each under the conditions of its slice.

    folders: bundle folders by arm.
    """
    digests = {"candidate": plan.candidate, "champion": plan.champion}
    parts = [(part, [seed for seed in seeds if plan.slice_of(seed) == part]) for part in plan.slices]
    return [
        Assignment(
            Label(plan.world, name, digests.get(name, ""), plan.sha256, plan.machine),
            own,
            folders.get(name),
            within=part,
        )
        for name in arms_of(plan)
        for part, own in parts
        if own
    ]


def arms_of(plan: Plan) -> tuple[str, ...]:
    """Return the names of the arms, in the order of the records."""
    return (CANDIDATE, *((CHAMPION,) if plan.champion else ()), *plan.baselines)


def _digests(paths: Paths) -> dict[str, str]:
    """Return the digests of the policies that the runner has fetched, by arm."""
    folders = {name: paths.scratch(name) for name in TRAINED}
    return {name: bundle.read(folder).digest for name, folder in folders.items() if folder.is_dir()}


def reserved(params: TaskParams) -> dict[str, tuple[int, int]]:
    """Return the seeds of other purposes than the gate's: name -> (first, end)."""
    demos, evaluate = params.demos, params.evaluate
    return {
        "demonstrations": (demos.seed, demos.seed + demos.episodes),
        "selection": (evaluate.first_seed, evaluate.first_seed + evaluate.episodes),
    }
