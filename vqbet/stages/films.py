"""Films of the gate's episodes, for human inspection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vqbet.contract import GateError
from vqbet.evaluation import gate, records, video
from vqbet.evaluation.plan import Plan
from vqbet.evaluation.pool import Assignment, RolloutPool
from vqbet.stages.players import here
from vqbet.stages.progress import Watch

WORST = 3  # episodes filmed


def worst(folder: Path, plan: Plan, pool: RolloutPool, played: Sequence[Assignment], watch: Watch) -> None:
    """Film the seeds with the candidate's worst scores relative to the champion, by replaying them with both policies.

    folder: the gate's records. played: the assignments of candidate and champion. Episodes are batched as in the gate,
    so that the films show the episodes of the records. Raises GateError where a replayed record differs.
    """
    if not played:
        return
    judged = gate.by_policy(records.read(folder / "records.jsonl"))
    others = {record.seed: record.score for record in judged.get("champion", ())}
    ranked = sorted(judged["candidate"], key=lambda record: (record.score - others.get(record.seed, 1.0), record.seed))
    wanted = {record.seed for record in ranked[:WORST]}
    shards = [shard for assignment in played for shard in assignment.shards()]
    again = [replace(shard, film=seeds) for shard in shards if (seeds := sorted(wanted.intersection(shard.seeds)))]
    for play in pool.play(f"{plan.world}: the worst {len(wanted)} again", again, watch.bar):
        for row, film in play.films.items():
            record = here(plan, play.records[row])
            if record not in judged[record.policy]:
                raise GateError(
                    f"seed {record.seed}: {record.policy} played it twice and scored otherwise; episodes that cannot "
                    "be repeated on this machine cannot be paired"
                )
            video.write(folder / "films" / f"{record.policy}-{record.seed}.webm", film.frames, film.fps)
