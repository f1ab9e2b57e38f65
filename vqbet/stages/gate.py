"""Stage: fix the plan, play candidate, champion and baselines on its seeds, here and now, until a look decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet import bundle, environment
from vqbet.contract import Demonstrations, EpisodeRecord, GateError
from vqbet.demos import store
from vqbet.evaluation import gate, records, video
from vqbet.evaluation.gate import Verdict
from vqbet.evaluation.plan import Plan, Slice, spec_sha256
from vqbet.evaluation.rollout import Label
from vqbet.policies import loading
from vqbet.stages import artifacts, rehearsal, retraining_history, sealing, worlds
from vqbet.stages.arena import Arena, Job
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.config import TaskParams

WORST = 3  # episodes that are filmed
TRAINED = CANDIDATE, CHAMPION = "candidate", "champion"  # arms that are bundles


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    """Candidate and champion are where the runner has put them, both from the registry."""
    demos = store.read(paths.store)
    policy, candidate = loading.load(paths.scratch("candidate"))
    blessed = rehearsal.bless(paths.scratch("candidate"), candidate.digest, demos, budget_ms=params.gate.latency_ms)
    artifacts.write_json(paths.blessing(candidate.digest), blessed.to_json())
    watch.say(f"{blessed.calls} calls in a clean process give the same actions; {blessed.latency_ms} ms a call (p99)")
    world = worlds.name(paths.task, asked=bool(policy.goal))
    retrained = retraining_history.retrained(paths.root, paths.task, candidate)
    make = partial(make_plan, world, params, demos, _digests(paths), retrained)
    played = make(1).candidate != make(1).champion
    plan = sealing.plan(paths.task, make) if played else make(1)
    plan.write(paths.gate / "plan.json")
    with Arena(paths.store) as arena:
        verdict, jobs = _decided(paths, plan, arena, watch)
        _film(paths, plan, arena, jobs, watch)
    metrics = {
        "promote": float(verdict.outcome == "PROMOTE"),
        "episodes": float(verdict.episodes),
        "more_episodes": float(verdict.more_episodes),
        "checks": float(len(verdict.checks)),
        "checks_passed": float(sum(check.passed for check in verdict.checks)),
    }
    artifacts.write_json(paths.metrics("gate"), metrics)
    if played:
        sealing.verdict(
            paths.root, paths.task, plan, sum(len(job.seeds) for job in jobs if job.label.policy == CANDIDATE)
        )
    watch.say(f"{verdict.outcome}: {verdict.reason}")
    return metrics


def make_plan(
    world: str,
    params: TaskParams,
    demos: Demonstrations,
    digests: Mapping[str, str],
    retrained: Sequence[float] = (),
    attempt: int = 1,
) -> Plan:
    """The comparison, before any episode of it was played. Raises GateError where the parameters do not fit together.

    digests: of "candidate" and, where there is one, "champion". retrained, attempt: see `Plan`.
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
        machine=environment.machine(),
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


def _decided(paths: Paths, plan: Plan, arena: Arena, watch: Watch) -> tuple[Verdict, list[Job]]:
    """Play from look to look until one decides; what was played is on disk after each of them."""
    played: list[EpisodeRecord] = []
    done: list[Job] = []
    verdict = gate.decide(plan, {})  # NOT_COMPARABLE
    arms, folders = arms_of(plan), {name: paths.scratch(name) for name in TRAINED}
    first = plan.first_seed
    for look in plan.looks if plan.candidate != plan.champion else ():
        jobs = jobs_of(plan, range(first, plan.first_seed + look), folders)
        found = arena.play(f"{plan.world}: {', '.join(arms)}", jobs, watch)
        played += [record for play in found for record in play.records]
        played.sort(key=lambda record: (arms.index(record.policy), record.seed))
        done += jobs
        records.write(paths.gate / "records.jsonl", played)
        verdict = gate.decide(plan, gate.by_policy(played))
        if verdict.outcome != "HOLD":
            break
        first = plan.first_seed + look
        watch.say(f"after {look} episodes: {verdict.reason}")
    gate.write(paths.gate / "verdict.json", verdict)
    return gate.replay(paths.gate), done


def _film(paths: Paths, plan: Plan, arena: Arena, jobs: list[Job], watch: Watch) -> None:
    """The seeds on which the candidate did worst, played again by it and the champion for people to look at.

    Whoever played together plays together again, so what is seen is what was judged. Raises GateError where it is not.
    """
    if not jobs:
        return
    played = gate.by_policy(records.read(paths.gate / "records.jsonl"))
    others = {record.seed: record.score for record in played.get("champion", ())}
    worst = sorted(played["candidate"], key=lambda record: (record.score - others.get(record.seed, 1.0), record.seed))
    wanted = {record.seed for record in worst[:WORST]}
    shards = [shard for job in jobs for shard in job.shards() if job.label.policy in TRAINED]
    again = [replace(shard, film=seeds) for shard in shards if (seeds := sorted(wanted.intersection(shard.seeds)))]
    for play in arena.play(f"{plan.world}: the worst {len(wanted)} again", again, watch):
        for row, film in play.films.items():
            record = play.records[row]
            if record not in played[record.policy]:
                raise GateError(
                    f"seed {record.seed}: {record.policy} played it twice and scored otherwise; episodes that cannot "
                    "be repeated on this machine cannot be paired"
                )
            video.write(paths.gate / "films" / f"{record.policy}-{record.seed}.webm", film.frames, film.fps)


def jobs_of(plan: Plan, seeds: range, folders: Mapping[str, Path]) -> list[Job]:
    """Every arm's episodes of one look, each under the conditions of its slice. folders: of the bundles, by arm."""
    digests = {"candidate": plan.candidate, "champion": plan.champion}
    parts = [(part, [seed for seed in seeds if plan.slice_of(seed) == part]) for part in plan.slices]
    return [
        Job(
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
    """Who plays, in the order of the records."""
    return (CANDIDATE, *((CHAMPION,) if plan.champion else ()), *plan.baselines)


def _digests(paths: Paths) -> dict[str, str]:
    """Of the policies that the runner has laid down."""
    folders = {name: paths.scratch(name) for name in TRAINED}
    return {name: bundle.read(folder).digest for name, folder in folders.items() if folder.is_dir()}


def reserved(params: TaskParams) -> dict[str, tuple[int, int]]:
    """Return the seeds of other purposes than the gate's: name -> (first, end)."""
    demos, evaluate = params.demos, params.evaluate
    return {
        "demonstrations": (demos.seed, demos.seed + demos.episodes),
        "selection": (evaluate.first_seed, evaluate.first_seed + evaluate.episodes),
    }
