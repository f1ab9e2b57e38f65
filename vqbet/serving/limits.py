"""Limits of the guard: of the spec, of the demonstrations' envelope in the bundle, and of a robot's own file.

A robot's own file is TOML or JSON and can only tighten, channel by channel (units of the spec; `rate` and
`acceleration` per control step):

    patience = 2
    max_age_s = 0.05
    [action.target_x]
    high = 400.0
    rate = 20.0
    [observation.agent_x]
    low = 10.0
    [camera.wrist]
    distance = 0.8
    still = 3
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
from jaxtyping import Float

from vqbet.contract import SLACK, Channel, ServingError, Spec
from vqbet.files import reading
from vqbet.policies.familiarity import LOOKS
from vqbet.serving.handshake import Handshake

LIMIT, SIGNAL = "limit.", "signal."
PATIENCE = 3  # consecutive refusals after which a robot stops: "holds within one period, stops within three"
AGE_PERIODS = 2.0  # age of an observation in control periods; an older one was made for another step
MAX_FILE_BYTES = 1 << 20
ACTION = ("low", "high", "rate", "acceleration", "start_low", "start_high")
OWN = {  # tables of a robot's own file: names there -> fields of Limits
    "action": {name: name for name in ACTION},
    "observation": {name: f"observation_{name}" for name in ("low", "high")},
}
OF_CAMERAS = {"camera": {name: f"camera_{name}" for name in ("distance", "still")}}  # for a spec with cameras
MEND = "limits can only be tightened"
Value = TypeVar("Value")


@final
@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """Limits of one policy on one robot, inclusive, in the units of the spec.

    low, high: of every action. rate: most change of an action from the one before it. acceleration: most change of that
    change. start_low, start_high: of an episode's first action. max_age_s: of an observation. patience: consecutive
    refusals until the stop. camera_low, camera_high: of mean and spread of each colour of each camera's pictures
    (`familiarity.looks`). camera_distance: of each camera's pictures from training, as a share of the most that the
    policy allows. camera_still: control steps for which a picture may stand still while the state changes.
    """

    spec: Spec
    low: Float[np.ndarray, " A"]
    high: Float[np.ndarray, " A"]
    rate: Float[np.ndarray, " A"]
    acceleration: Float[np.ndarray, " A"]
    start_low: Float[np.ndarray, " A"]
    start_high: Float[np.ndarray, " A"]
    observation_low: Float[np.ndarray, " D"]
    observation_high: Float[np.ndarray, " D"]
    max_age_s: float
    patience: int = PATIENCE
    camera_low: Float[np.ndarray, " cameras*looks"] = field(default_factory=lambda: np.zeros(0))
    camera_high: Float[np.ndarray, " cameras*looks"] = field(default_factory=lambda: np.zeros(0))
    camera_distance: Float[np.ndarray, " cameras"] = field(default_factory=lambda: np.zeros(0))
    camera_still: Float[np.ndarray, " cameras"] = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, handshake: Handshake, own: Mapping[str, Any] | None = None) -> Limits:
        """Return the limits of a handshake, tightened by a robot's `own`, in the form that `read` returns.

        Limits that the handshake lacks are the widest that the spec allows. Raises ServingError, naming the channel,
        where the handshake's or the robot's limits are unknown, not finite or wider, or leave nothing between them.
        """
        spec = handshake.spec
        widest = _widest(spec)
        found = {name: values.copy() for name, values in widest.items()}
        for name, values in handshake.limits.items():
            if name not in widest or len(values) != len(widest[name]):
                raise ServingError(
                    f"limits of the policy: {name}: expected one number for each channel of {', '.join(widest)}, got "
                    f"{len(values)}; install the same version of vqbet on both, or build the bundle again"
                )
            for place, value in enumerate(values):
                _tighten(found, name, place, value, f"limits of the policy: {name}: {_channel(spec, name, place)!r}")
        rate_hz = _number(spec.control_hz, "limits of the spec: control_hz")
        if rate_hz <= 0:
            raise ServingError(f"limits of the spec: control_hz: expected a rate above 0, got {rate_hz:g}")
        scalars = {"max_age_s": AGE_PERIODS / rate_hz, "patience": float(PATIENCE)}
        for name, value in (own or {}).items():
            if name in scalars:
                scalars[name] = _scalar(name, value, scalars[name])
            else:
                _own(spec, found, name, value)
        _refuse_empty(spec, found)
        return cls(spec, **found, max_age_s=scalars["max_age_s"], patience=int(scalars["patience"]))


def listed(component: Mapping[str, np.ndarray], prefix: str) -> dict[str, list[float]]:
    """Return the tensors of a bundle's component `guard` with this prefix, LIMIT or SIGNAL, as in a `Handshake`."""
    return {name.removeprefix(prefix): each.tolist() for name, each in component.items() if name.startswith(prefix)}


def read(path: Path) -> dict[str, Any]:
    """Return a robot's own limits from a .toml or .json file. Raises ServingError where it cannot be read."""
    text = reading.load(path, ServingError, most=MAX_FILE_BYTES)
    if path.suffix == ".json":
        content = reading.parse(text, str(path), ServingError)
        if not isinstance(content, dict):
            raise ServingError(f"{path}: expected limits by name, got {type(content).__name__}")
        return content
    if path.suffix != ".toml":
        raise ServingError(f"{path}: expected a file of limits whose name ends with .toml or .json")
    with reading.sentences(str(path), ServingError, "expected TOML"):
        return tomllib.loads(text)


def _widest(spec: Spec) -> dict[str, Float[np.ndarray, " _"]]:
    """Return the limits that the spec alone allows. Actions are float32, so are their limits."""
    acted = np.array([_ends(channel) for channel in spec.action], np.float32).astype(np.float64).reshape(-1, 2).T
    seen = np.array([_ends(channel) for channel in spec.observation], np.float64).reshape(-1, 2).T
    span, slack = acted[1] - acted[0], SLACK * (seen[1] - seen[0])
    eyes, looked = len(spec.cameras), np.zeros(len(spec.cameras) * len(LOOKS))
    cameras = {"camera_low": looked, "camera_high": looked + 255.0}  # where the policy's guard knows nothing of them
    cameras |= {"camera_distance": np.ones(eyes), "camera_still": np.full(eyes, np.inf)}
    return {
        "low": acted[0],
        "high": acted[1],
        "rate": span,
        "acceleration": 2 * span,
        "start_low": acted[0],
        "start_high": acted[1],
        "observation_low": seen[0] - slack,
        "observation_high": seen[1] + slack,
        **(cameras if eyes else {}),
    }


def _ends(channel: Channel) -> tuple[float, float]:
    """Return the limits of a channel of the spec, without which nothing can be guarded."""
    where = f"limits of the spec: {channel.name!r}"
    low, high = _number(channel.low, where), _number(channel.high, where)
    if low > high:
        raise ServingError(f"{where}: nothing lies between {low:g} and {high:g}")
    return low, high


def _tighten(found: Mapping[str, np.ndarray], name: str, place: int, value: Any, where: str) -> None:
    """Set one limit. Raises ServingError where it is no finite number or wider than the present one."""
    number, before = _number(value, where), float(found[name][place])
    if number < before if name.endswith("low") else number > before:
        raise ServingError(f"{where}: {number:g} is wider than {before:g}; {MEND}")
    found[name][place] = number


def _own(spec: Spec, found: Mapping[str, np.ndarray], kind: str, channels: Any) -> None:
    """Tighten by one table of a robot's own limits: limits by name, by channel."""
    tables = OWN | (OF_CAMERAS if spec.cameras else {})
    known = _known(tables, kind, "limits of the robot", beside=("max_age_s", "patience"))
    named = spec.cameras if kind == "camera" else getattr(spec, kind)
    places = {one.name: place for place, one in enumerate(named)}
    for channel, limits in _table(channels, f"limits of the robot: {kind}").items():
        where = f"limits of the robot: {kind} {reading.short(channel)}"
        place = _known(places, channel, f"limits of the robot: {kind}")
        for name, value in _table(limits, where).items():
            _tighten(found, _known(known, name, where), place, value, f"{where}: {name}")


def _scalar(name: str, value: Any, most: float) -> float:
    where = f"limits of the robot: {name}"
    number = _number(value, where)
    if number > most:
        raise ServingError(f"{where}: {number:g} is wider than {most:g}; {MEND}")
    if number <= 0 or (name == "patience" and number % 1):
        raise ServingError(
            f"{where}: expected {'a whole number from 1' if name == 'patience' else 'a time above 0'}, got {number:g}"
        )
    return number


def _known(known: Mapping[str, Value], name: Any, where: str, *, beside: Sequence[str] = ()) -> Value:
    if name not in known:
        raise ServingError(f"{where}: {reading.short(name)} is unknown; there are {', '.join([*beside, *known])}")
    return known[name]


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ServingError(f"{where}: expected limits by name, got {reading.short(value)}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise ServingError(f"{where}: expected a finite number, got {reading.short(value)}")
    return float(value)


def _refuse_empty(spec: Spec, found: Mapping[str, np.ndarray]) -> None:
    """Raise ServingError where no value is left between two limits, or no change is left."""
    pairs = (("low", "high"), ("start_low", "start_high"), ("observation_low", "observation_high"))
    for low, high in pairs:
        for place in np.flatnonzero(found[low] > found[high]):
            raise ServingError(
                f"limits: {_channel(spec, low, place)!r}: nothing lies between {low} {found[low][place]:g} and {high} "
                f"{found[high][place]:g}; mend the robot's own limits"
            )
    for name in ("rate", "acceleration", *(("camera_distance", "camera_still") if spec.cameras else ())):
        for place in np.flatnonzero(found[name] < 0):
            raise ServingError(
                f"limits: {_channel(spec, name, place)!r}: {name}: expected 0 or more, got {found[name][place]:g}"
            )


def _channel(spec: Spec, limit: str, place: int | np.intp) -> str:
    if limit.startswith("camera_"):
        return spec.cameras[int(place) // (1 if limit in OF_CAMERAS["camera"].values() else len(LOOKS))].name
    return (spec.observation if limit in OWN["observation"].values() else spec.action)[int(place)].name
