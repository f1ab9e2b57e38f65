"""A world from any Gymnasium environment: declared by its id, with a mapping from its observations to channels.

Gymnasium's own vector interface steps the episodes; an episode that has ended is stepped no more by anybody who looks.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vqbet.contract import Spec, WorldError
from vqbet.tasks.checks import refuse
from vqbet.tasks.declared import measure
from vqbet.tasks.declared.measure import EpisodeMeasure
from vqbet.tasks.declared.spaces import SEED, seeded

RENDERED = "render()"  # in the place of a camera's path: the environment's own picture
TRIED = 5  # steps of the check before a training
MANY = 16  # seeds that are tried before a world is said to have one episode


@dataclass(frozen=True, slots=True)
class WorldDeclaration:
    """An environment as params.yaml declares it.

    id: Gymnasium's, `module:Id-v0` imports the module first. observation: paths in the environment's observation, in
    the order of the spec's channels; "" is all of it, "a.b" goes into dictionaries. kwargs: the environment's
    arguments; SEED is the episode's seed, for environments whose reset does not obey it. cameras: a path for each
    camera, or RENDERED. success, score: rules, see `measure`. max_steps: most steps of an episode.
    """

    id: str
    observation: tuple[str, ...]
    success: str
    max_steps: int
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    cameras: Mapping[str, str] = field(default_factory=dict)
    score: str = "success"


class GymnasiumWorld:
    """World that steps E episodes of a declared environment. Raises WorldError naming the id."""

    goal: tuple[str, ...] = ()

    def __init__(self, spec: Spec, declared: WorldDeclaration) -> None:
        self.spec, self.max_steps = spec, declared.max_steps
        self._declared = declared
        self._envs: Any = None
        self._success, self._score = measure.success(declared.success), measure.score(declared.score)
        self._steps = np.zeros(0, np.int64)
        self._ended = np.zeros(0, bool)

    def reset(self, seeds: Int[np.ndarray, " E"]) -> Float[np.ndarray, "E D"]:
        """Start an episode per seed; the environment's own reset under this seed."""
        if self._envs is None or self._envs.num_envs != len(seeds) or SEED in self._declared.kwargs.values():
            self.close()
            self._envs = self._made(seeds)
        self._steps, self._ended = np.zeros(len(seeds), np.int64), np.zeros(len(seeds), bool)
        self._measure = EpisodeMeasure(self._success, self._score, len(seeds))
        self._seen, _ = self._envs.reset(seed=[int(seed) for seed in seeds])
        return self._observed(np.arange(len(seeds)))

    def step(
        self, action: Float[np.ndarray, "B A"], rows: Int[np.ndarray, " B"]
    ) -> tuple[Float[np.ndarray, "B D"], Bool[np.ndarray, " B"]]:
        """Step the episodes `rows`. Actions are clipped to the environment's own limits."""
        refuse(self._declared.id, action, rows, channels=len(self.spec.action), steps=self._steps, ended=self._ended)
        space = self._envs.single_action_space
        whole = np.clip(np.zeros((len(self._steps), *space.shape), space.dtype), space.low, space.high)
        whole[rows] = np.clip(action.reshape(len(rows), *space.shape), space.low, space.high)
        self._seen, reward, terminated, truncated, info = self._envs.step(whole)
        self._measure.step(rows, np.asarray(reward, np.float64)[rows], info, terminated[rows])
        self._steps[rows] += 1
        ended = terminated[rows] | truncated[rows] | (self._steps[rows] >= self.max_steps)
        self._ended[rows] = ended
        return self._observed(rows), ended

    def goals(self) -> Float[np.ndarray, "E 0"]:
        return np.zeros((len(self._steps), 0), np.float32)

    def metrics(self) -> dict[str, np.ndarray]:
        return {"score": self._measure.score, "success": self._measure.success, "return": self._measure.returns.copy()}

    def cameras(self, rows: Int[np.ndarray, " B"]) -> dict[str, UInt8[np.ndarray, "B height width 3"]]:
        """Return the pictures of the spec's cameras."""
        found = {}
        for camera in self.spec.cameras:
            path = self._declared.cameras[camera.name]
            pictures = [self.render(int(row)) for row in rows] if path == RENDERED else _at(self._seen, path)[rows]
            found[camera.name] = np.stack([np.asarray(picture) for picture in pictures])
            if found[camera.name].shape[1:] != camera.shape or found[camera.name].dtype != np.uint8:
                raise WorldError(
                    f"{self._declared.id}: camera {camera.name!r}: expected pictures of shape {camera.shape} of uint8, "
                    f"got {found[camera.name].shape[1:]} of {found[camera.name].dtype}"
                )
        return found

    def render(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return the environment's own picture. Raises WorldError where it cannot draw here."""
        try:
            picture = self._envs.envs[row].render()
        except Exception as error:  # of foreign code, often of a missing graphics library
            raise WorldError(
                f"{self._declared.id}: cannot draw: {type(error).__name__}: {error}; set evaluate.videos to 0, or "
                "install what it draws with (MUJOCO_GL=egl or osmesa for MuJoCo)"
            ) from error
        if picture is None:
            raise WorldError(f"{self._declared.id}: draws nothing; set evaluate.videos to 0")
        return np.asarray(picture, np.uint8)

    def close(self) -> None:
        if self._envs is not None:
            self._envs.close()
            self._envs = None

    def _made(self, seeds: Int[np.ndarray, " E"]) -> Any:
        """Return a vector environment with an episode per seed."""
        import gymnasium
        from gymnasium.vector import AutoresetMode, SyncVectorEnv

        module, _, _ = self._declared.id.rpartition(":")
        try:
            if module:
                importlib.import_module(module)
            most = self.max_steps + 1  # episodes are ended here, at max_steps
            makers = [
                partial(
                    gymnasium.make,
                    self._declared.id,
                    max_episode_steps=most,
                    **{"render_mode": "rgb_array", **seeded(self._declared.kwargs, int(seed))},
                )
                for seed in seeds
            ]
            envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
        except Exception as error:  # of foreign code
            raise WorldError(
                f"{self._declared.id}: cannot be made: {type(error).__name__}: {error}; is the package installed, and "
                "are id and kwargs right?"
            ) from error
        self._expect_actions(envs.single_action_space)
        return envs

    def _expect_actions(self, space: Any) -> None:
        wanted, low = len(self.spec.action), getattr(space, "low", None)  # only a box has limits
        if low is None or np.size(low) != wanted:
            raise WorldError(
                f"{self._declared.id}: expected a box of {wanted} numbers as actions, as the task's, got {space}"
            )

    def _observed(self, rows: np.ndarray) -> Float[np.ndarray, "B D"]:
        parts = [_at(self._seen, path) for path in self._declared.observation]
        try:
            found = np.concatenate(
                [np.asarray(part, np.float64)[rows].reshape(len(rows), -1) for part in parts], axis=1
            )
        except (TypeError, ValueError) as error:
            raise WorldError(f"{self._declared.id}: observation: expected arrays of numbers: {error}") from error
        if found.shape[1] != len(self.spec.observation):
            raise WorldError(
                f"{self._declared.id}: observation: expected {len(self.spec.observation)} numbers as the task's, got "
                f"{found.shape[1]} at {', '.join(map(repr, self._declared.observation))}"
            )
        if not np.isfinite(found).all():
            row, channel = np.argwhere(~np.isfinite(found))[0]
            name = self.spec.observation[channel].name
            raise WorldError(
                f"{self._declared.id}: observation {name!r} of episode {rows[row]} is {found[row, channel]} at step "
                f"{self._steps[rows[row]]}"
            )
        return found.astype(np.float32)


def check(spec: Spec, declared: WorldDeclaration, *, drawn: bool) -> None:
    """Raise WorldError where the declared world does not do what a gate needs, before anything is trained for it.

    It must be made, fit the spec, and, where `drawn`, draw. An episode must begin and go on as its seed says: when it
    is played again, and in another world beside another episode. Of MANY seeds, not all may give the same episode.
    """
    used, other = GymnasiumWorld(spec, declared), GymnasiumWorld(spec, declared)
    try:
        first, again = _tried(used, [1, 2], drawn=drawn), _tried(used, [1, 2], drawn=False)
        _expect_equal(declared, first, again, "played again")
        swapped = _tried(other, [2, 1], drawn=False)
        _expect_equal(declared, first, [seen[::-1] for seen in swapped], "in another world")
        if all((step == step[0]).all() for step in first):
            more = _tried(used, range(1, MANY + 1), drawn=False)
            if all((step == step[0]).all() for step in more):
                raise WorldError(
                    f"{declared.id}: every seed plays the same episode (seeds 1 to {MANY} begin and go on alike); a "
                    "gate counts each seed as an episode of its own; leave out arguments that fix what should differ"
                )
    finally:
        used.close()
        other.close()


def _expect_equal(
    declared: WorldDeclaration, first: Sequence[np.ndarray], second: Sequence[np.ndarray], how: str
) -> None:
    for step, (one, two) in enumerate(zip(first, second, strict=False)):  # equal ones are of equal length
        if not np.array_equal(one, two):
            seed = 1 + int(np.argmax((one != two).any(axis=1)))
            when = f"step {step}" if step else "its reset"
            raise WorldError(
                f"{declared.id}: is not determined by its seed: two episodes of seed {seed} differ after {when} "
                f"({how}); a gate compares policies on the same seeds; where the environment takes a seed as an "
                f'argument, declare kwargs: {{<argument>: "{SEED}"}}'
            )


def _tried(world: GymnasiumWorld, seeds: Sequence[int], *, drawn: bool) -> list[np.ndarray]:
    """Return, step by step until one ends, the observations, ends and returns of an episode per seed."""
    spec, nothing = world.spec, np.zeros(len(seeds))
    seen = [np.column_stack([world.reset(np.array(seeds)), nothing, nothing])]
    middle = np.array([[(one.low + one.high) / 2 for one in spec.action]] * len(seeds), np.float32)
    rows = np.arange(len(seeds))
    for _ in range(min(TRIED, world.max_steps - 1)):
        observation, ended = world.step(middle, rows)
        seen.append(np.column_stack([observation, ended, world.metrics()["return"]]))
        if ended.any():
            break
    if spec.cameras:
        world.cameras(rows)
    if drawn:
        world.render(0)
    return seen


def _at(seen: Any, path: str) -> Any:
    """Return a part of a vector environment's observation. Raises WorldError naming the path."""
    found = seen
    for part in path.split(".") if path else ():
        if not isinstance(found, Mapping) or part not in found:
            there = ", ".join(sorted(found)) if isinstance(found, Mapping) else f"an array of shape {np.shape(found)}"
            raise WorldError(f"observation {path!r}: the environment has {there}")
        found = found[part]
    if isinstance(found, Mapping):
        raise WorldError(f"observation {path!r}: is a dictionary of {', '.join(sorted(found))}; name one of them")
    return found
