"""Findings about a source: roles of its fields, rate, meaning of actions, limits, and lengths of episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.commands.new import roles
from vqbet.commands.new.roles import Ask, Roles
from vqbet.contract import Camera, Channel, ConfigError, Spec
from vqbet.demos.sources import meaning
from vqbet.demos.sources.bags import Resampling
from vqbet.demos.sources.meaning import ActionMeaning
from vqbet.demos.sources.source import Source

APART = 0.01  # relative difference beyond which a claimed rate is not the measured one
KINDS = ("absolute", "relative")
LARGEST_GAP_S = Resampling().largest_gap_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Answers a person has given about the data; empty or None where the data decides. ask: asks the person."""

    path: str
    format: str = ""
    observation: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    cameras: tuple[str, ...] | None = None
    control_hz: float | None = None
    actions: str = ""
    leave_out: bool = False
    nearest: tuple[str, ...] = ()
    largest_gap_s: float = LARGEST_GAP_S
    world: str = ""
    world_kwargs: Mapping[str, Any] = field(default_factory=dict)
    success: str = ""
    ask: Ask | None = None

    @property
    def resampling(self) -> Resampling:
        """Return how the topics of a bag become steps."""
        return Resampling(self.control_hz or 0.0, frozenset(self.nearest), self.largest_gap_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Findings about one source. observation, action: channels by field. checks: sentences for a person to check."""

    format: str
    path: Path
    control_hz: float
    actions: str
    meaning: ActionMeaning
    roles: Roles
    observation: dict[str, list[Channel]]
    action: dict[str, list[Channel]]
    lengths: np.ndarray
    labelled: bool
    resampling: Resampling | None = None
    checks: list[str] = field(default_factory=list)

    @property
    def spec(self) -> Spec:
        """Return the spec of the task, under no name."""
        observation, action = (tuple(one for part in side.values() for one in part) for side in self._sides)
        cameras = tuple(Camera(name, one.height, one.width, one.lossy) for name, one in self.roles.cameras.items())
        kind: Any = self.actions
        return Spec("", observation, action, self.control_hz, kind, "", cameras)

    @property
    def _sides(self) -> tuple[dict[str, list[Channel]], dict[str, list[Channel]]]:
        return self.observation, self.action


def look(source: Source, asked: Asked, progress: Callable[[int, int], None]) -> Findings:
    """Read the numbers of a source once, and return what they show.

    Raises ConfigError with the readings and the option that chooses where the data does not tell and nobody can be
    asked, StoreError where the source is damaged.
    """
    found = roles.of(
        source,
        observation=asked.observation,
        action=asked.action,
        cameras=asked.cameras,
        leave_out=asked.leave_out,
        ask=asked.ask,
    )
    used = {*found.observation, *found.action, *(camera.field for camera in found.cameras.values())}
    whole = [number for number, one in enumerate(source.episodes) if not used & set(one.missing)]
    if not whole:
        raise ConfigError(f"{source.path}: no episode has all of {', '.join(sorted(used))}")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (*found.observation, *found.action)}
    times = []
    for done, number in enumerate(whole, start=1):
        for name, parts in columns.items():
            rows = source.numbers(number, name)
            parts.append(np.asarray(rows, np.float32).reshape(len(rows), -1))
        recorded = source.time_s(number)
        if recorded is not None:
            times.append(np.asarray(recorded, np.float64))
        progress(done, len(whole))
    values = {name: np.concatenate(parts) for name, parts in columns.items()}
    lengths = np.array([source.episodes[number].steps for number in whole])
    observation = {name: _channels(source, name, values[name]) for name in found.observation}
    action = {name: _channels(source, name, values[name]) for name in found.action}
    told = meaning.of_actions(
        np.concatenate([values[name] for name in found.observation], axis=1),
        np.concatenate([values[name] for name in found.action], axis=1),
        np.cumsum(lengths),
        (_names(observation), _names(action)),
    )
    checks = [*source.notes, *found.checks, *_about_topics(source, asked)]
    rate = _rate(source, asked, meaning.rate_hz(times), checks)
    return Findings(
        format=source.format,
        path=source.path,
        control_hz=rate,
        actions=_kind(source, asked, told, checks),
        meaning=told,
        roles=found,
        observation=observation,
        action=action,
        lengths=lengths,
        resampling=asked.resampling if source.format == "bag" else None,
        labelled=any("success" in source.episodes[number].labels for number in whole),
        checks=[*checks, *_about_channels(observation, action, values)],
    )


def _channels(source: Source, name: str, values: np.ndarray) -> list[Channel]:
    """Return the channels of a field, named as the source does, else after the field."""
    one, width = source.fields[name], values.shape[1]
    names = list(one.names) if len(one.names) == width == len(set(one.names)) else []
    units = list(one.units) if len(one.units) == width else [""] * width
    last = name.replace("/", ".").rsplit(".", 1)[-1]
    names = names or ([last] if width == 1 else [f"{last}_{number}" for number in range(width)])
    rows = zip(names, units, meaning.limits(values), strict=True)
    return [Channel(each, unit, low, high) for each, unit, (low, high) in rows]


def _names(channels: dict[str, list[Channel]]) -> list[str]:
    return [one.name for part in channels.values() for one in part]


def _rate(source: Source, asked: Asked, measured: float | None, checks: list[str]) -> float:
    if asked.control_hz:
        if measured and abs(measured / asked.control_hz - 1) > APART:
            raise ConfigError(f"--hz {asked.control_hz:g}: the recorded times of {source.path} are of {measured:g} Hz")
        return asked.control_hz
    claimed = source.rate_hz
    if measured is None and claimed is None:
        raise ConfigError(f"{source.path}: says neither times nor a rate; say the control steps of one second: --hz 10")
    if measured is None:
        checks.append(f"control_hz: {claimed:g} as the source claims; it records no times to measure")
        return float(claimed or 0)
    if claimed is not None and abs(measured / claimed - 1) > APART:
        checks.append(f"control_hz: {measured:g} by the recorded times, the source claims {claimed:g}")
    return measured


def _kind(source: Source, asked: Asked, told: ActionMeaning, checks: list[str]) -> str:
    if asked.actions:
        if told.kind and told.kind != asked.actions:
            checks.append(f"actions: {asked.actions} as was said, but {told.sentence()}")
        return asked.actions
    if told.kind:
        return told.kind
    if asked.ask is None:
        raise ConfigError(
            f"{source.path}: {told.sentence()}, which does not tell them apart; say --actions absolute (targets) or "
            "--actions relative (changes per step)"
        )
    return asked.ask(f"Actions: {told.sentence()}. Which are they?", KINDS)


def _about_channels(
    observation: dict[str, list[Channel]], action: dict[str, list[Channel]], values: dict[str, np.ndarray]
) -> list[str]:
    """Return sentences on channels without a unit, and on those that never change."""
    checks = []
    channels = [
        (name, number, one)
        for part in (observation, action)
        for name, found in part.items()
        for number, one in enumerate(found)
    ]
    bare = [one.name for _, _, one in channels if not one.unit]
    if bare:
        checks.append(f"units: none for {_some(bare)}; the source has none")
    still = [one.name for name, number, one in channels if np.ptp(values[name][:, number]) == 0]
    if still:
        checks.append(f"{_some(still)} never change; leave them out if they say nothing")
    checks.append("limits: the recorded range and a tenth more on either side; the guard stops a robot beyond them")
    return checks


def _about_topics(source: Source, asked: Asked) -> list[str]:
    """Return a sentence on the resampling of a bag's topics, which its notes name with their rates."""
    if source.format != "bag":
        return []
    held = ", ".join(name for name in source.fields if name not in asked.nearest) or "none"
    return [
        f"resample: a step holds the last message of {held}; --nearest <topic> takes the nearest instead, --hz chooses "
        f"the rate, --largest-gap how old a message may be (now {asked.largest_gap_s:g} s)"
    ]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
