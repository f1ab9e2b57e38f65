"""Worlds and baselines by name, as spelled in plans and records."""

from __future__ import annotations

from vqbet.contract import Demonstrations, Env, Policy, WorldError
from vqbet.evaluation.noise import Disturbed
from vqbet.policies.nearest import NearestDemonstration
from vqbet.policies.noop import NoOp
from vqbet.tasks import TASKS

ASKING = "+goals"  # suffix of a task's name for its world with a goal in each episode


def name(task: str, *, asked: bool) -> str:
    return task + ASKING if asked else task


def exists(task: str) -> bool:
    """Return whether a task can be simulated."""
    return task in TASKS and TASKS[task].world is not None


def make(world: str, demos: Demonstrations | None = None) -> Env:
    """Return a new world by name. A world whose name ends with ASKING takes its goals from `demos`.

    Raises WorldError, listing the known worlds.
    """
    name = world.removesuffix(ASKING)
    task = TASKS.get(name)
    if name == world:
        if task is None or task.world is None:
            raise WorldError(f"no world {name!r}; there are: {_names('world')}")
        return task.world()
    if task is None or task.goal_world is None:
        raise WorldError(f"no world that asks for goals {name!r}; there are: {_names('goal_world')}")
    if demos is None:
        raise WorldError(f"world {world!r}: expected demonstrations to ask for goals from, got none")
    return task.goal_world(demos)


def _names(field: str) -> str:
    return ", ".join(sorted(name for name, task in TASKS.items() if getattr(task, field) is not None))


def disturbed(env: Env, demos: Demonstrations, *, observation_noise: float, action_noise: float) -> Env:
    """Return the world, wrapped in noise where one of the two noise levels is not 0."""
    if not (observation_noise or action_noise):
        return env
    return Disturbed(env, observation_noise=observation_noise, action_noise=action_noise, demos=demos)


def baseline(policy: str, demos: Demonstrations) -> Policy:
    """Return an untrained baseline policy: "noop" or "nearest"."""
    return NoOp(demos.spec) if policy == "noop" else NearestDemonstration(demos)
