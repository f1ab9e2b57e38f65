"""A simulator for a task that is being declared: its observation is mapped to the fields, its infos to success."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vqbet.commands.new.findings import Asked, Findings
from vqbet.commands.new.roles import Ask
from vqbet.contract import ConfigError
from vqbet.files import reading
from vqbet.tasks.declared import spaces, world
from vqbet.tasks.declared.spaces import Offer
from vqbet.tasks.declared.world import RENDERED, WorldDeclaration

SUCCESS = re.compile(r"(.*[._])?(is_)?(success|succeeded|solved|goal_achieved|goal_reached)", re.IGNORECASE)
LONGER = 2  # times the longest demonstration, where the environment has no limit of its own


@dataclass(frozen=True, slots=True)
class Simulator:
    """A declared world as it stands in params.yaml, and what a person should check about it."""

    id: str
    kwargs: Mapping[str, Any]
    observation: Mapping[str, str]
    cameras: Mapping[str, str]
    success: str
    max_steps: int
    checks: tuple[str, ...]


def arguments(text: str) -> dict[str, Any]:
    """Return the arguments of an environment from JSON. Raises ConfigError unless it is an object."""
    found = reading.parse(text, "--world-kwargs", ConfigError)
    if not isinstance(found, dict):
        raise ConfigError(f'--world-kwargs: expected an object, as {{"env_name": "reach-v3"}}, got {text[:80]}')
    return found


def of(asked: Asked, found: Findings) -> Simulator:
    """Return the world that a person has named, after it was tried as `vqbet check` does.

    Where no rule of success was named, it is told from the infos. Raises ConfigError with the readings where two are
    possible and nobody can be asked, or where the environment does not fit the demonstrations; WorldError where it
    cannot be made, is not determined by its seed, or fails otherwise.
    """
    id, kwargs, ask = asked.world, asked.world_kwargs, asked.ask
    offer = spaces.look(id, kwargs)
    if offer.actions != len(found.spec.action):
        raise ConfigError(
            f"{id}: takes {offer.actions} numbers as actions, the demonstrations have {len(found.spec.action)}"
        )
    sizes = {name: len(channels) for name, channels in found.observation.items()}
    places = _observed(offer, sizes, ask)
    cameras = {name: _camera(offer, name, role.field) for name, role in found.roles.cameras.items()}
    rule = asked.success or _success(offer, ask)
    steps = offer.max_steps or LONGER * int(found.lengths.max())
    world.check(
        found.spec, WorldDeclaration(id, tuple(places.values()), rule, steps, kwargs, dict(cameras)), drawn=False
    )
    told = ", ".join(f"{field} from {path or 'all of it'}" for field, path in places.items())
    checks = [
        f"world: observes {told}; were the demonstrations recorded in this environment, in this order and these units?",
        f"world: success is {rule}; an episode ends after {steps} steps",
    ]
    return Simulator(id, kwargs, places, cameras, rule, steps, tuple(checks))


def _observed(offer: Offer, sizes: Mapping[str, int], ask: Ask | None) -> dict[str, str]:
    """Return the place of each observed field: the one of its name, else the only one of its size."""
    numbers = {path: math.prod(shape) for path, shape in offer.places.items() if path not in offer.pictures}
    found = {}
    for field, width in sizes.items():
        fitting = [path for path, size in numbers.items() if size == width]
        named = [path for path in fitting if path.rpartition(".")[2] == re.split(r"[./]", field)[-1]]
        found[field] = _one(named or fitting, f"{offer.id}: where is {field} ({width} numbers)?", _told(numbers), ask)
    return found


def _camera(offer: Offer, name: str, field: str) -> str:
    """Return the place of a camera's picture: that of its name, the only one, else the environment's own picture."""
    wanted = {name, re.split(r"[./]", field)[-1]}
    named = [path for path in sorted(offer.pictures) if path.rpartition(".")[2] in wanted]
    if named or len(offer.pictures) == 1:
        return (named or sorted(offer.pictures))[0]
    return RENDERED


def _success(offer: Offer, ask: Ask | None) -> str:
    plain = offer.infos & {"success"}
    found = [f"info.{key}" for key in sorted(plain or offer.infos) if SUCCESS.fullmatch(key)]
    rest = [f"info.{key}" for key in sorted(offer.infos)]
    question = f"{offer.id}: which info says that an episode has succeeded? (--success also takes return >= x)"
    return _one(found or ([] if ask is None else [*rest, "terminated"]), question, ", ".join(rest), ask)


def _one(readings: Sequence[str], question: str, there: str, ask: Ask | None) -> str:
    if len(readings) == 1:
        return readings[0]
    if readings and ask is not None:
        return ask(question, readings)
    said = f"{len(readings)} readings: {', '.join(map(repr, readings))}" if readings else "none fits"
    advice = "say --success info.<key>, return >= x, reward >= x or terminated"
    if "success" not in question:
        advice = "write evaluate.world by hand (docs/your-task.md)"
    raise ConfigError(f"{question} {said}; there are: {there or 'none'}; {advice}")


def _told(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{path or 'all of it'} ({size})" for path, size in numbers.items())
