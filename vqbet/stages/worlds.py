"""Worlds and baselines by name, as spelled in plans and records.

The name of a declared world is its whole declaration, so that a plan says what was played, and a record where.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vqbet.contract import Demonstrations, Env, Policy, Spec, WorldError
from vqbet.evaluation.noise import Disturbed
from vqbet.files import canonical
from vqbet.policies.nearest import NearestDemonstration
from vqbet.policies.noop import NoOp
from vqbet.tasks import TASKS

if TYPE_CHECKING:
    from vqbet.config import TaskParams
    from vqbet.tasks.declared.world import WorldDeclaration

ASKING = "+goals"  # suffix of a task's name for its world with a goal in each episode
DECLARED = "gymnasium "  # beginning of the name of a declared world, before its declaration as JSON


def name(task: str, *, asked: bool, params: TaskParams | None = None) -> str:
    """Return the name of a task's world. params: of a task that may declare one."""
    if params is not None and params.evaluate.world is not None:
        chosen = params.evaluate.world
        listed = {**chosen.model_dump(mode="json"), "observation": _paths(task, params)}
        return DECLARED + canonical.line(listed)
    return task + ASKING if asked else task


def exists(task: str, params: TaskParams | None = None) -> bool:
    """Return whether a task can be simulated, by its own world or by one that its parameters declare."""
    return (params is not None and params.evaluate.world is not None) or (
        task in TASKS and TASKS[task].world is not None
    )


def declared(world: str) -> WorldDeclaration | None:
    """Return the declaration that is a world's name; None for the name of another world."""
    from vqbet.tasks.declared.world import WorldDeclaration

    if not world.startswith(DECLARED):
        return None
    value = json.loads(world.removeprefix(DECLARED))
    return WorldDeclaration(id=value.pop("gymnasium"), observation=tuple(value.pop("observation")), **value)


def shown(world: str) -> str:
    """Return the name of a world for people."""
    found = declared(world)
    return found.id if found else world


def check(world: str, spec: Spec, *, drawn: bool) -> None:
    """Try a declared world; any other is known. drawn: whether it must draw pictures. Raises WorldError."""
    found = declared(world)
    if found is not None:
        from vqbet.tasks.declared import world as gymnasium

        gymnasium.check(spec, found, drawn=drawn)


def _paths(task: str, params: TaskParams) -> list[str]:
    """Return the path in the world's observation of each field that the task observes, in the order of its channels.

    Raises WorldError where one is missing, or one is named that is not observed.
    """
    assert params.evaluate.world is not None
    observed = list(params.source.observation) if params.source is not None else []
    named = params.evaluate.world.observation
    if set(observed) != set(named):
        raise WorldError(
            f"{task}.evaluate.world.observation: expected a path for each observed field ({', '.join(observed)}), got "
            f"{', '.join(named) or 'none'}"
        )
    return [named[field] for field in observed]


def make(world: str, demos: Demonstrations | None = None) -> Env:
    """Return a new world by name. A world whose name ends with ASKING takes its goals from `demos`, a declared one its
    spec.

    Raises WorldError, listing the known worlds.
    """
    found = declared(world)
    if found is not None:
        from vqbet.tasks.declared.world import GymnasiumWorld

        if demos is None:
            raise WorldError(f"{found.id}: expected demonstrations, whose spec it shall have, got none")
        return GymnasiumWorld(demos.spec, found)
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
