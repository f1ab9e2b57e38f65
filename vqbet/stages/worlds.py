"""Worlds and opponents by name, as plans and records spell them."""

from __future__ import annotations

from vqbet import tasks
from vqbet.contract import Demonstrations, Env, Policy, WorldError
from vqbet.evaluation.noise import Disturbed
from vqbet.policies.nearest import NearestDemonstration
from vqbet.policies.noop import NoOp

ASKING = "+goals"  # after a task's name: its world that asks each episode for a goal


def name(task: str, *, asked: bool) -> str:
    return task + ASKING if asked else task


def make(world: str, demos: Demonstrations | None = None) -> Env:
    """A fresh world by name; one whose name ends with ASKING takes what it asks for from `demos`.

    Raises WorldError naming those there are.
    """
    task = world.removesuffix(ASKING)
    known = tasks.WORLDS if task == world else tasks.GOAL_WORLDS
    if task not in known:
        kind = "world" if task == world else "world that asks for goals"
        raise WorldError(f"no {kind} {task!r}; there are: {', '.join(sorted(known))}")
    if task == world:
        return tasks.WORLDS[task]()
    if demos is None:
        raise WorldError(f"world {world!r}: expected demonstrations to ask for goals from, got none")
    return tasks.GOAL_WORLDS[task](demos)


def disturbed(env: Env, demos: Demonstrations, *, observation_noise: float, action_noise: float) -> Env:
    """The world as it is, or behind noise where there is some."""
    if not (observation_noise or action_noise):
        return env
    return Disturbed(env, observation_noise=observation_noise, action_noise=action_noise, demos=demos)


def baseline(policy: str, demos: Demonstrations) -> Policy:
    """An opponent that was not trained: "noop" or "nearest"."""
    return NoOp(demos.spec) if policy == "noop" else NearestDemonstration(demos)
