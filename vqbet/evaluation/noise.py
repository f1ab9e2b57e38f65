"""Gaussian noise on the observations and actions of any world, to measure a policy's robustness.

The noise is white: new at every step. Its unit is half of a channel's range, so 0.01 is 0.01 in the units of a policy
whose inputs and outputs are normalised to -1..1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, final

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vqbet.contract import Channel, Demonstrations, Env, Pictures, SeenEnv, WorldError

NOISE_STREAM = 3  # joined with a seed to draw noise, so that starts and goals are the same as without noise


@final
class Disturbed:
    """`env` with noise on observations and actions; metrics, goals and pictures, those of cameras too, are unchanged.

    Equals `env` at 0 and 0.

    The noise of an episode depends on its seed, the step and the channel alone, and is drawn at any strength: doubling
    the strength doubles the same noise. Executed actions are clipped to the channels' limits; observations are not, as
    sensors can err beyond physical limits.

    By default a channel's range is that between its limits. The unit is fair where the limits describe typical values:
    0.01 is 2.6 px of the finger and 3.2 px of a keypoint in Push-T, 3.3 mm and 1.8 degrees in BlockPush (0.3 mm of an
    action). Where limits only exclude the impossible (Franka Kitchen: 50 rad/s), pass `demos`: the range is then that
    of the demonstrations, and a channel that is constant in them has no noise.
    """

    def __init__(
        self, env: Env, *, observation_noise: float, action_noise: float, demos: Demonstrations | None = None
    ) -> None:
        """Noise is a fraction of half a channel's range. Raises WorldError unless it is finite and >= 0."""
        for name, value in (("observation_noise", observation_noise), ("action_noise", action_noise)):
            if not (np.isfinite(value) and value >= 0):
                raise WorldError(f"disturbed: {name}: expected a finite number >= 0, got {value}")
        self.spec, self.goal, self.max_steps = env.spec, env.goal, env.max_steps
        if demos is not None and (differences := self.spec.differences(demos.spec)):
            raise WorldError("disturbed: these demonstrations are of another spec: " + "; ".join(differences))
        self._env = env
        observed, acted = (demos.observation, demos.action) if demos is not None else (None, None)
        self._seen = observation_noise * _half_ranges(self.spec.observation, observed)
        self._done = action_noise * _half_ranges(self.spec.action, acted)
        self._limits = np.array([[channel.low, channel.high] for channel in self.spec.action]).T
        self._generators: list[np.random.Generator] = []

    def reset(self, seeds: Int[np.ndarray, " E"]) -> Float[np.ndarray, "E D"]:
        observation = self._env.reset(seeds)
        self._generators = [np.random.default_rng([int(seed), NOISE_STREAM]) for seed in seeds]
        return self._blurred(observation, self._drawn(np.arange(len(observation)), len(self.spec.observation)))

    def step(
        self, action: Float[np.ndarray, "B A"], rows: Int[np.ndarray, " B"]
    ) -> tuple[Float[np.ndarray, "B D"], Bool[np.ndarray, " B"]]:
        """Step `env` with noise. Raises as `env`, and WorldError on a non-finite or misshapen action or unknown row."""
        rows, actions = np.asarray(rows), len(self.spec.action)
        if np.shape(action) != (len(rows), actions) or not np.isfinite(action).all():
            raise WorldError(
                f"disturbed {self.spec.task}: expected finite actions of shape ({len(rows)}, {actions}), "
                f"got shape {np.shape(action)}"
            )
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self._generators)):
            raise WorldError(f"disturbed {self.spec.task}: rows are not all among {len(self._generators)} episodes")
        noise = self._drawn(rows, actions + len(self.spec.observation))
        observation, ended = self._env.step(self._missed(action, noise[:, :actions]), rows)
        return self._blurred(observation, noise[:, actions:]), ended

    def goals(self) -> Float[np.ndarray, "E C"]:
        return self._env.goals()

    def cameras(self, rows: Int[np.ndarray, " B"]) -> Pictures:
        return cast(SeenEnv, self._env).cameras(rows)

    def goal_cameras(self) -> Pictures:
        return cast(SeenEnv, self._env).goal_cameras()

    def metrics(self) -> dict[str, np.ndarray]:
        return self._env.metrics()

    def render(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        return self._env.render(row)

    def _drawn(self, rows: Int[np.ndarray, " B"], count: int) -> Float[np.ndarray, "B count"]:
        """Return the next standard normal numbers of these episodes."""
        drawn = [self._generators[row].standard_normal(count) for row in rows.tolist()]
        return np.array(drawn).reshape(-1, count)

    def _missed(self, action: Float[np.ndarray, "B A"], noise: Float[np.ndarray, "B A"]) -> np.ndarray:
        """Return the noisy action to execute."""
        if not self._done.any():
            return action
        missed: np.ndarray = np.clip(action + self._done * noise, *self._limits).astype(np.float32)
        return missed

    def _blurred(self, observation: Float[np.ndarray, "B D"], noise: Float[np.ndarray, "B D"]) -> np.ndarray:
        """Return the noisy observation."""
        if not self._seen.any():
            return observation
        blurred: np.ndarray = (observation + self._seen * noise).astype(np.float32)
        return blurred


def _half_ranges(channels: Sequence[Channel], shown: Float[np.ndarray, "N C"] | None) -> Float[np.ndarray, " C"]:
    """Return half the range of each channel: of the values shown, or of its limits."""
    if shown is not None:
        half: np.ndarray = (shown.max(axis=0) - shown.min(axis=0)).astype(np.float64) / 2
        return half
    half = np.array([(channel.high - channel.low) / 2 for channel in channels])
    if not np.isfinite(half).all():
        name = channels[int(np.argmin(np.isfinite(half)))].name
        raise WorldError(f"disturbed: {name!r} has no limits to take its noise from; give demonstrations")
    return half
