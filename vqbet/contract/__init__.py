"""Types that all packages share: spec, demonstrations, policy, world, episode record, errors.

Imports numpy and jaxtyping only. Legend of dimensions, used in every docstring and shape annotation:

    B batch        T observed steps    H chunk steps (future actions)    N steps in a store    E episodes
    D observation  A action            Q quantiser layers                K codes per layer
    C goal channels (of the observation)                                 G goal steps (future observations)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import ArrayLike

from vqbet.contract import arrays
from vqbet.contract.errors import (
    BundleError,
    ConfigError,
    GateError,
    PipelineError,
    RegistryError,
    ServingError,
    StorageError,
    StoreError,
    SupplyError,
    TeamError,
    TrainingError,
    ValidationError,
    VqbetError,
    WorldError,
)
from vqbet.contract.spec import Camera, Channel, Spec

__all__ = [
    "COLUMNS",
    "GOAL_PICTURES",
    "LEAST_TEMPERATURE",
    "SLACK",
    "Advance",
    "BundleError",
    "Camera",
    "Channel",
    "ConfigError",
    "Demonstrations",
    "Env",
    "EpisodeRecord",
    "Frames",
    "GateError",
    "Pictures",
    "PipelineError",
    "Policy",
    "RegistryError",
    "SeenEnv",
    "ServingError",
    "Spec",
    "StorageError",
    "StoreError",
    "SupplyError",
    "TeamError",
    "Tracker",
    "TrainingError",
    "ValidationError",
    "VqbetError",
    "WorldError",
]

# In a `goal`, beside or instead of names of channels: the pictures of all cameras as they shall be in the end.
GOAL_PICTURES = "pictures"
LEAST_TEMPERATURE = 1e-6  # least divisor of logits before a draw: below it float32 overflows, argmax is the same
# Tolerance of an observation beyond a channel's limits, as a share of its range: sensors err, and the gate's noise
# (0.005 of half a range, rarely more than 0.02) is not clipped to the limits. A wrong unit is off by 57 or more.
SLACK = 0.25


class Frames(Protocol):
    """Pictures of one camera, one for each step, that are read where they are asked for. An array is one, too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, height, width, 3)."""

    def __getitem__(self, steps: Int[np.ndarray, "*B"]) -> UInt8[np.ndarray, "*B height width 3"]:
        """Return the pictures of these steps as a fresh array. Raises IndexError for a step that does not exist."""


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """Demonstrations of a task in memory: flat arrays over steps, cut into episodes by `episode_ends`.

    `episode_ends[e]` is one past the last step of episode e (the replay-buffer convention of Diffusion Policy).
    `state` holds the simulator state of each step, from which a world can be restored; None for data without states,
    NaN at every step of an episode that has none, see `stateless`.
    `intervention` marks the steps of recorded episodes at which a person acted; None for data without recordings.
    `columns` holds one array of length E for each of COLUMNS. `digest` is the sha256 of the store's manifest.
    `cameras` holds the pictures of each camera of the spec, by its name.
    """

    spec: Spec
    observation: Float[np.ndarray, "N D"]  # float32
    action: Float[np.ndarray, "N A"]  # float32
    time_s: Float[np.ndarray, " N"]  # float64, seconds since the episode's first step
    episode_ends: Int[np.ndarray, " E"]  # int64
    columns: Mapping[str, np.ndarray]
    state: Float[np.ndarray, "N S"] | None = None  # float64
    digest: str = ""
    intervention: Bool[np.ndarray, " N"] | None = None
    cameras: Mapping[str, Frames] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        observation: ArrayLike,
        action: ArrayLike,
        episode_ends: ArrayLike,
        *,
        control_hz: float | None = None,
        spec: Spec | None = None,
    ) -> Demonstrations:
        """Return demonstrations built from arrays: observation (N, D), action (N, A), episode_ends (E,).

        Pass either `spec` or `control_hz`. With `control_hz`, channels are named observation_0, action_0 and so on and
        have no unit, and actions are targets ("absolute"). The limits of a channel are its recorded range, widened on
        either side by MARGIN of it; for a constant channel, by 1 or by MARGIN of the value if that is more.
        Every episode counts as a success. Raises ValidationError, naming argument, step and channel, for arrays that
        have other shapes, hold numbers that are not finite, or leave the limits of `spec`.
        """
        numbers = {"observation": arrays.matrix("observation", observation), "action": arrays.matrix("action", action)}
        ends = arrays.ends(episode_ends, {name: len(array) for name, array in numbers.items()})
        for name, array in numbers.items():
            arrays.refuse_infinite(name, array, ends)
        if (spec is None) == (control_hz is None):
            raise ValidationError("expected either control_hz or a spec, which has one, got both or neither")
        if spec is None:
            observed, acted = (arrays.channels(name, array) for name, array in numbers.items())
            spec = Spec("own", observed, acted, arrays.rate(control_hz), action_kind="absolute", frame="")
        for name, array, channels in zip(numbers, numbers.values(), (spec.observation, spec.action), strict=True):
            arrays.refuse_beyond(name, array, channels)
        lengths = np.diff(ends, prepend=0)
        steps = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        return cls(
            spec=spec,
            observation=numbers["observation"],
            action=numbers["action"],
            time_s=steps / spec.control_hz,
            episode_ends=ends,
            columns={
                **{name: np.full(len(ends), "") for name in ("session", "operator", "source")},
                "seed": np.full(len(ends), -1, np.int64),
                "success": np.ones(len(ends), bool),
                "task": np.full(len(ends), spec.task),
            },
        )

    @property
    def episode_starts(self) -> Int[np.ndarray, " E"]:
        return np.concatenate([np.zeros(1, np.int64), self.episode_ends[:-1]])

    @property
    def lengths(self) -> Int[np.ndarray, " E"]:
        return np.diff(self.episode_ends, prepend=0)

    @property
    def stateless(self) -> Bool[np.ndarray, " E"]:
        """Return which episodes have no simulator state: a robot has none, nor has data without states."""
        if self.state is None:
            return np.ones(len(self.episode_ends), bool)
        return np.logical_and.reduceat(np.isnan(self.state).all(axis=1), self.episode_starts)


# Per-episode columns of every store: who recorded the episode, where it comes from, and its outcome.
COLUMNS: Mapping[str, str] = {
    "session": "string",
    "operator": "string",
    "source": "string",
    "seed": "int64",  # -1 where the recording had none
    "success": "bool",
    "task": "string",
}


# One picture of each camera, by its name, for each of B episodes: uint8 (B, height, width, 3), RGB.
Pictures = Mapping[str, UInt8[np.ndarray, "B height width 3"]]


def goal_channels(goal: tuple[str, ...]) -> tuple[str, ...]:
    """Return the C channels of a goal, without GOAL_PICTURES."""
    return tuple(name for name in goal if name != GOAL_PICTURES)


class Policy(Protocol):
    """Policy that acts in many episodes at once; rows do not affect one another.

    `goal` names the observation channels whose target values `reset` receives, with GOAL_PICTURES last where it
    receives pictures as a `GoalSeeingPolicy`; empty where no goal is needed.
    """

    spec: Spec
    goal: tuple[str, ...]  # C channels, and GOAL_PICTURES

    def reset(self, seeds: Int[np.ndarray, " E"], goals: Float[np.ndarray, "E C"] | None = None) -> None:
        """Start E new episodes. All randomness of episode e comes from seeds[e]; no state is kept from earlier ones.

        goals[e]: values that the `goal` channels shall have in the end, physical units; None where no goal is needed.
        """

    def act(
        self, observation: Float[np.ndarray, "B D"], rows: Int[np.ndarray, " B"], cameras: Pictures | None = None
    ) -> Float[np.ndarray, "B A"]:
        """Return one action (physical units) for each of B <= E running episodes; rows[b] is the episode of row b.

        cameras: the pictures that belong to the observations, of every camera of the spec; None where it has none.
        """


class GoalSeeingPolicy(Policy, Protocol):
    """Policy whose `goal` ends with GOAL_PICTURES."""

    def reset(
        self,
        seeds: Int[np.ndarray, " E"],
        goals: Float[np.ndarray, "E C"] | None = None,
        cameras: Pictures | None = None,
    ) -> None:
        """Start E new episodes as any policy. cameras: one picture of every camera for each goal."""


class Env(Protocol):
    """World, simulated or real, that steps many episodes at once. One with cameras is a `SeenEnv`.

    `goal` names the observation channels for which an episode requests values, with GOAL_PICTURES last where it shows
    pictures of its goal; empty where there are no goals.
    """

    spec: Spec
    goal: tuple[str, ...]  # C channels, and GOAL_PICTURES
    max_steps: int

    def reset(self, seeds: Int[np.ndarray, " E"]) -> Float[np.ndarray, "E D"]:
        """Start E episodes and return their first observations; each initial condition depends on its seed alone."""

    def step(
        self, action: Float[np.ndarray, "B A"], rows: Int[np.ndarray, " B"]
    ) -> tuple[Float[np.ndarray, "B D"], Bool[np.ndarray, " B"]]:
        """Step the B episodes in `rows`; return their observations, and whether each of them ended at this step."""

    def goals(self) -> Float[np.ndarray, "E C"]:
        """Return each episode's goal since the last reset: values of the `goal` channels, physical units, float32."""

    def metrics(self) -> dict[str, np.ndarray]:
        """Return one array of length E per metric so far: "score" (0..1) and "success" (bool) always; "mode" (string,
        empty while undecided) where the world has modes."""

    def render(self, row: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return an RGB picture of one running episode."""


class SeenEnv(Env, Protocol):
    """World whose spec has cameras."""

    def cameras(self, rows: Int[np.ndarray, " B"]) -> Pictures:
        """Return the pictures of the B running episodes in `rows` as they are now, of every camera of the spec."""

    def goal_cameras(self) -> Pictures:
        """Return the pictures of each episode's goal since the last reset; called only where `goal` has pictures."""


@dataclass(frozen=True, slots=True)
class EpisodeRecord:
    """Outcome of one episode, simulated or on a robot. Everything downstream of a rollout reads only these records."""

    world: str
    policy: str  # "candidate", "champion" or a baseline's name
    digest: str  # of the policy bundle; empty for baselines
    plan: str  # sha256 of the plan, which was fixed before the episode ran
    seed: int
    steps: int
    success: bool
    score: float  # 0..1
    mode: str = ""
    slice: str = ""  # of the plan: the conditions under which the episode was played
    machine: str = ""  # where it was played
    metrics: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


# Receives (step, metrics) from a running stage: MLflow, a list in a test, or nothing.
Tracker = Callable[[int, Mapping[str, float]], None]
# Receives the progress of a part of a stage: done, total, numbers to show beside the bar.
Advance = Callable[[int, int, Mapping[str, float]], None]
