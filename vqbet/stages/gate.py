"""Stage: play the present champion on the candidate's seeds, on this machine, now; then decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqbet import playable
from vqbet.contract import EpisodeRecord
from vqbet.demos import store
from vqbet.evaluation import gate, records
from vqbet.evaluation.plan import Plan
from vqbet.stages import evaluate, files
from vqbet.stages.paths import Paths
from vqbet.stages.watch import Watch

if TYPE_CHECKING:
    from vqbet.config import TaskParams


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    """The plan carries the parameters; the champion's bundle is where the runner has put it, if there is one."""
    plan = Plan.read(paths.evaluation / "plan.json")
    arms = gate.arms(records.read(paths.evaluation / "records.jsonl"))
    candidate = arms.pop("candidate", [])
    champion = _champion(paths, plan, watch)
    verdict = gate.decide(plan, candidate, champion, arms)
    paths.gate.mkdir(parents=True, exist_ok=True)
    if champion is not None:
        records.write(paths.gate / "champion.jsonl", champion)
    gate.write(paths.gate / "verdict.json", verdict)
    gate.replay(paths.artifacts)
    watch.say(f"{verdict.outcome}: {verdict.reason}")
    metrics = {
        "promote": float(verdict.outcome == "PROMOTE"),
        "more_episodes": float(verdict.more_episodes),
        "checks": float(len(verdict.checks)),
        "checks_passed": float(sum(check.passed for check in verdict.checks)),
    }
    files.write_json(paths.metrics("gate"), metrics)
    return metrics


def _champion(paths: Paths, plan: Plan, watch: Watch) -> list[EpisodeRecord] | None:
    folder = paths.scratch("champion")
    if not folder.is_dir():
        return None
    policy, packed = playable.load(folder)
    return evaluate.play(plan, store.read(paths.store), policy, "champion", packed.digest, watch).records
