"""Players for a pool of processes. Each reads a world by name and a policy by name or bundle, once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vqbet import bundle, environment, policies
from vqbet.contract import Demonstrations, EpisodeRecord, Policy
from vqbet.demos import store
from vqbet.environment import threads
from vqbet.evaluation import rollout
from vqbet.evaluation.plan import Plan
from vqbet.evaluation.pool import Assignment, Report
from vqbet.evaluation.rollout import Play
from vqbet.stages import worlds


@dataclass(slots=True)
class StorePlayers:
    """Player that keeps the demonstrations at `store` and every policy played so far. Pickled as the path alone."""

    store: Path
    _demos: Demonstrations | None = None
    _policies: dict[tuple[Path | None, str, str], Policy] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        return StorePlayers, (self.store,)

    def play(self, assignment: Assignment, report: Report) -> Play:
        """Play an assignment on one thread. Raises WorldError as `rollout.play`, BundleError as `policies.load`."""
        env = worlds.make(assignment.label.world, self.demos)
        label = replace(assignment.label, machine=environment.machine())  # the machine of this process
        within = assignment.within
        if within is not None:
            noise = {"observation_noise": within.observation_noise, "action_noise": within.action_noise}
            env, label = worlds.disturbed(env, self.demos, **noise), replace(label, slice=within.name)
        rows = [list(assignment.seeds).index(seed) for seed in assignment.film]
        with threads.of(1):
            return rollout.play(env, self._policy(assignment), assignment.seeds, label, progress=report, film=rows)

    @property
    def demos(self) -> Demonstrations:
        if self._demos is None:
            self._demos = store.read(self.store)
        return self._demos

    def _policy(self, assignment: Assignment) -> Policy:
        key = (assignment.bundle, assignment.label.policy, assignment.label.digest)
        if key not in self._policies:
            self._policies[key] = self._read(assignment)
        return self._policies[key]

    def _read(self, assignment: Assignment) -> Policy:
        if assignment.bundle is None:
            return worlds.baseline(assignment.label.policy, self.demos)
        policy, packed = policies.load(assignment.bundle, assignment.label.digest)
        bundle.expect(packed, self.demos.spec)
        return policy


def here(plan: Plan, record: EpisodeRecord) -> EpisodeRecord:
    """Return the record with the plan's value of `machine`, if it was played on this machine.

    A record from another machine keeps its value, so that the gate cannot reach a verdict with it.
    """
    return replace(record, machine=plan.machine) if record.machine == environment.machine() else record
