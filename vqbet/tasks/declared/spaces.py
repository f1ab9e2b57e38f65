"""An environment of Gymnasium, looked at: places of its observation, its actions, and what its infos say."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vqbet.contract import WorldError

TRIED = 20  # steps with random actions, after which infos are known
SEED = "{seed}"  # in the place of an argument: the seed of the episode, for which the environment is made anew


@dataclass(frozen=True, slots=True)
class Offer:
    """Content of an environment. places: shape of each array in its observation by its path, "" for the whole.

    pictures: those of them that are uint8 RGB. infos: numbers and flags in the infos of the first steps, by key.
    max_steps: after which it ends an episode; 0 where it does not say.
    """

    id: str
    places: Mapping[str, tuple[int, ...]]
    pictures: frozenset[str]
    actions: int
    infos: frozenset[str]
    max_steps: int


def seeded(kwargs: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the arguments of the environment that plays the episode of a seed."""
    return {name: seed if value == SEED else value for name, value in kwargs.items()}


def look(id: str, kwargs: Mapping[str, Any]) -> Offer:
    """Return what an environment with these arguments offers.

    Raises WorldError where it cannot be made or stepped, or has no box of actions.
    """
    import gymnasium

    module, _, _ = id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        env = gymnasium.make(id, **seeded(kwargs, 1))
        try:
            infos: set[str] = set()
            env.reset(seed=1)
            env.action_space.seed(1)
            for _ in range(TRIED):
                _, _, terminated, truncated, info = env.step(env.action_space.sample())
                infos |= set(_numbers(info))
                if terminated or truncated:
                    break
        finally:
            env.close()
    except Exception as error:  # of foreign code
        raise WorldError(
            f"{id}: cannot be made and stepped: {type(error).__name__}: {error}; is the package installed, and are "
            "id and arguments right? (module:Id-v0 imports the module first)"
        ) from error
    low = getattr(env.action_space, "low", None)
    if low is None:
        raise WorldError(f"{id}: expected a box of numbers as actions, got {env.action_space}")
    spaces = dict(_spaces(env.observation_space))
    return Offer(
        id=id,
        places={path: tuple(space.shape) for path, space in spaces.items()},
        pictures=frozenset(path for path, space in spaces.items() if space.dtype == np.uint8 and len(space.shape) == 3),
        actions=int(np.size(low)),
        infos=frozenset(infos),
        max_steps=int((env.spec.max_episode_steps if env.spec else None) or 0),
    )


def _spaces(space: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the boxes of a space by their path."""
    inside = getattr(space, "spaces", None)
    if isinstance(inside, Mapping):
        for name, part in inside.items():
            yield from _spaces(part, f"{path}.{name}" if path else name)
    elif getattr(space, "shape", None) is not None:
        yield path, space


def _numbers(info: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in info.items():
        key = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping):
            yield from _numbers(value, key)
        elif isinstance(value, bool | int | float | np.bool_ | np.number):
            yield key
