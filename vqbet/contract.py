"""Types that all packages share: spec, demonstrations, policy, world, episode record, errors.

Imports numpy and jaxtyping only. Legend of dimensions, used in every docstring and shape annotation:

    B batch        T observed steps    H chunk steps (future actions)    N steps in a store    E episodes
    D observation  A action            Q quantiser layers                K codes per layer
    C goal channels (of the observation)                                 G goal steps (future observations)

Errors that a user can meet. Each message says what was expected, what came, where, and what to do:

    VqbetError
    |-- ConfigError       params.yaml: unknown key, wrong type, out of bounds
    |-- StoreError        a demonstration store cannot be read or written
    |-- ValidationError   a store was read, and its demonstrations are not fit for training
    |-- TrainingError     a model cannot be trained, resumed, or came out unhealthy
    |-- BundleError       a policy on disk is not what it claims to be
    |-- WorldError        a simulator does not support a request
    |-- ServingError      policy server and robot do not fit together, cannot be reached, or break the protocol
    |-- GateError         records, plan and verdict do not belong together
    |-- RegistryError     the model registry cannot be reached, or refuses
    |-- StorageError      the S3 bucket cannot be reached, refuses, or does not hold what it should
    |-- SupplyError       a lock, or a list about locked distributions, is missing or broken
    `-- PipelineError     DVC or Prefect could not do what was requested
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import ArrayLike

LEAST_TEMPERATURE = 1e-6  # least divisor of logits before a draw: below it float32 overflows, argmax is the same
# Tolerance of an observation beyond a channel's limits, as a share of its range: sensors err, and the gate's noise
# (0.005 of half a range, rarely more than 0.02) is not clipped to the limits. A wrong unit is off by 57 or more.
SLACK = 0.25


class VqbetError(Exception):
    """Base class of the errors that a user can cause and fix. Shown without a traceback; the exit code is 1."""


class ConfigError(VqbetError):
    """Raised where params.yaml does not fit the schema in `vqbet.config`."""


class StoreError(VqbetError):
    """Raised where a demonstration store cannot be read or written."""


class ValidationError(VqbetError):
    """Raised where demonstrations were read and are not fit for training."""


class TrainingError(VqbetError):
    """Raised where a model cannot be trained or resumed, or came out unhealthy."""


class BundleError(VqbetError):
    """Raised where a policy on disk is not what it claims to be."""


class WorldError(VqbetError):
    """Raised where a simulator does not support a request."""


class ServingError(VqbetError):
    """Raised where policy server and robot do not fit together, cannot be reached, or break the protocol."""


class GateError(VqbetError):
    """Raised where records, plan and verdict do not belong together."""


class RegistryError(VqbetError):
    """Raised where the model registry cannot be reached, or refuses."""


class StorageError(VqbetError):
    """Raised where the S3 bucket cannot be reached, refuses, or does not hold what it should."""


class SupplyError(VqbetError):
    """Raised where a lock, or a list about locked distributions, is missing or broken."""


class PipelineError(VqbetError):
    """Raised where DVC or Prefect could not do what was requested."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One number of an observation or an action: its name, unit and physical limits (inclusive)."""

    name: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera: its name, and the size in px of its pictures, which are RGB, uint8 (height, width, 3).

    lossy: the lossy codec that the pictures passed before they were stored; "" where they are as they were taken.
    """

    name: str
    height: int
    width: int
    lossy: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, 3)


@dataclass(frozen=True, slots=True)
class Spec:
    """Interface that demonstrations, a policy and a world must share to be used together.

    action_kind: "absolute" (a target) or "relative" (a change per control step). frame: the reference of positions.
    cameras: one picture of each belongs to every step.
    """

    task: str
    observation: tuple[Channel, ...]  # D channels
    action: tuple[Channel, ...]  # A channels
    control_hz: float
    action_kind: Literal["absolute", "relative"]
    frame: str
    cameras: tuple[Camera, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON; without cameras it has no key for them, as before there were any."""
        value = asdict(self)
        return value if self.cameras else {key: item for key, item in value.items() if key != "cameras"}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Spec:
        """Return the spec that `to_json` wrote. Raises KeyError or TypeError for a missing or unknown key."""
        rest = {key: item for key, item in value.items() if key not in ("observation", "action", "cameras")}
        return cls(
            observation=tuple(Channel(**channel) for channel in value["observation"]),
            action=tuple(Channel(**channel) for channel in value["action"]),
            cameras=tuple(Camera(**camera) for camera in value.get("cameras", ())),
            **rest,
        )

    def differences(self, other: Spec) -> list[str]:
        """Return one sentence per difference between this spec and `other`; empty where they agree."""
        found = []
        for name in ("task", "control_hz", "action_kind", "frame"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                found.append(f"{name}: {mine!r} here, {theirs!r} there")
        for name in ("observation", "action"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if len(mine) != len(theirs):
                found.append(f"{name}: {len(mine)} channels here, {len(theirs)} there")
                continue
            for index, (one, two) in enumerate(zip(mine, theirs, strict=True)):
                if one != two:
                    found.append(f"{name}[{index}]: {one} here, {two} there")
        mine, theirs = ({camera.name: camera for camera in spec.cameras} for spec in (self, other))
        return found + [
            f"camera {name!r}: {mine.get(name, 'none')} here, {theirs.get(name, 'none')} there"
            for name in dict.fromkeys([*mine, *theirs])
            if mine.get(name) != theirs.get(name)
        ]


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
        numbers = {"observation": _matrix("observation", observation), "action": _matrix("action", action)}
        ends = _ends(episode_ends, {name: len(array) for name, array in numbers.items()})
        for name, array in numbers.items():
            _refuse_infinite(name, array, ends)
        if (spec is None) == (control_hz is None):
            raise ValidationError("expected either control_hz or a spec, which has one, got both or neither")
        if spec is None:
            observed, acted = (_channels(name, array) for name, array in numbers.items())
            spec = Spec("own", observed, acted, _rate(control_hz), action_kind="absolute", frame="")
        for name, array, channels in zip(numbers, numbers.values(), (spec.observation, spec.action), strict=True):
            _refuse_beyond(name, array, channels)
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


MARGIN = 0.1  # of a recorded range, added on either side for default limits


def _matrix(name: str, value: ArrayLike) -> Float[np.ndarray, "N C"]:
    """Return an array as float32. Raises ValidationError unless it holds real numbers of shape (N, C)."""
    array = np.asarray(value)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise ValidationError(
            f"{name}: expected real numbers of shape (steps, channels), all episodes one after the other, got shape "
            f"{array.shape} of {array.dtype}"
        )
    with np.errstate(over="ignore"):
        return np.array(array, np.float32)


def _ends(value: ArrayLike, steps: Mapping[str, int]) -> Int[np.ndarray, " E"]:
    """Return episode_ends as int64. Raises ValidationError where they do not cut the given steps into episodes."""
    ends, counts = np.asarray(value), set(steps.values())
    if len(counts) != 1:
        listing = ", ".join(f"{count} of {name}" for name, count in steps.items())
        raise ValidationError(f"expected as many steps of observation as of action, got {listing}")
    if ends.ndim != 1 or ends.dtype.kind not in "iu" or not len(ends):
        raise ValidationError(
            f"episode_ends: expected whole numbers of shape (episodes,), got shape {ends.shape} of {ends.dtype}; from "
            "flags that are true at an episode's last step: np.flatnonzero(flags) + 1"
        )
    ends = ends.astype(np.int64)
    wrong = np.flatnonzero(np.diff(ends, prepend=0) < 1)
    if len(wrong) or ends[-1] != counts.pop():
        place = int(wrong[0]) if len(wrong) else len(ends) - 1
        raise ValidationError(
            f"episode_ends: expected one past the last step of each episode, rising to {max(steps.values())}, the "
            f"number of steps, got {ends[place]} for episode {place}; from lengths: np.cumsum(lengths)"
        )
    return ends


def _refuse_infinite(name: str, array: Float[np.ndarray, "N C"], ends: Int[np.ndarray, " E"]) -> None:
    if np.isfinite(array).all():
        return
    step, channel = np.argwhere(~np.isfinite(array))[0]
    episode = int(np.searchsorted(ends, step, side="right"))
    raise ValidationError(
        f"{name}: expected finite float32 numbers, got {array[step, channel]} at step {step}, which is of episode "
        f"{episode}, in channel {channel}; mend that episode or leave it out"
    )


def _refuse_beyond(name: str, array: Float[np.ndarray, "N C"], channels: Sequence[Channel]) -> None:
    if len(channels) != array.shape[1]:
        raise ValidationError(f"{name}: expected the {len(channels)} channels of the spec, got {array.shape[1]}")
    for channel, low, high in zip(channels, array.min(axis=0), array.max(axis=0), strict=True):
        if low < np.float32(channel.low) or high > np.float32(channel.high):
            raise ValidationError(
                f"{name} {channel.name!r}: expected {channel.low:g} to {channel.high:g} {channel.unit}, the limits of "
                f"the spec, got {low:g} to {high:g}; check units and order of channels, or mend the limits"
            )


def _channels(name: str, array: Float[np.ndarray, "N C"]) -> tuple[Channel, ...]:
    """Return channels without units, whose limits are the recorded range plus a margin."""
    low, high = array.min(axis=0).astype(np.float64), array.max(axis=0).astype(np.float64)
    margin = np.where(high > low, MARGIN * (high - low), np.maximum(MARGIN * np.abs(low), 1.0))
    limits = zip((low - margin).tolist(), (high + margin).tolist(), strict=True)
    return tuple(Channel(f"{name}_{index}", "", *both) for index, both in enumerate(limits))


def _rate(value: float | None) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise ValidationError(f"control_hz: expected the control steps of one second, such as 10, got {value!r}")
    return float(value)


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


class Policy(Protocol):
    """Policy that acts in many episodes at once; rows do not affect one another.

    `goal` names the observation channels whose target values `reset` receives; empty where no goal is needed.
    """

    spec: Spec
    goal: tuple[str, ...]  # C channels

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


class Env(Protocol):
    """World, simulated or real, that steps many episodes at once. One with cameras is a `SeenEnv`.

    `goal` names the observation channels for which an episode requests values; empty where there are no goals.
    """

    spec: Spec
    goal: tuple[str, ...]  # C channels
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
