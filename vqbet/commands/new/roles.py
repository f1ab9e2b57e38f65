"""Roles of a source's fields: what is observed, what acts, and which pictures are cameras."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vqbet.contract import ConfigError
from vqbet.demos.sources.source import Field, Source

Ask = Callable[[str, Sequence[str]], str]  # (question, answers) -> one of the answers

ACTIONS = ("action", "actions")  # last part of the name of a field of actions
STATES = ("observation.state", "state", "observation", "obs", "agent_pos", "qpos")  # taken alone where they are there
OBSERVED = re.compile(r"(observation\.|obs/)")  # beginning of the names of further observed fields
BOOKKEEPING = re.compile(
    r"(timestamp|time|time_s|frame_index|episode_index|index|task_index|next\..*|rewards?|dones?|success|terminated|"
    r"truncated|n_contacts|states|next_obs/.*|intervention)$"
)
SMALL = 128  # px up to which pictures are kept as they are
HEIGHT = 96  # px to which larger ones are scaled
GRID = 8  # px of which the scaled width is a multiple


@dataclass(frozen=True, slots=True)
class CameraRole:
    """A field of pictures as a camera. lossy: codec of the source; "" where there is none."""

    field: str
    height: int
    width: int
    lossy: str


@dataclass(frozen=True, slots=True)
class Roles:
    """Fields by role, each in the source's order. checks: what a person should look at, one sentence each."""

    observation: tuple[str, ...]
    action: tuple[str, ...]
    cameras: dict[str, CameraRole]
    checks: list[str] = field(default_factory=list)


def of(
    source: Source,
    *,
    observation: Sequence[str],
    action: Sequence[str],
    cameras: Sequence[str] | None,
    leave_out: bool,
    ask: Ask | None,
) -> Roles:
    """Return the roles of the fields of a source.

    observation, action: fields that a person has named; empty: told from the names. cameras: the same; None: all whose
    files are there, or with `leave_out` all. Raises ConfigError, naming the readings and the option, where names do not
    tell and nobody can be asked.
    """
    numbers = [name for name, one in source.fields.items() if one.kind == "numbers"]
    _expect(source, observation, "--observation", numbers)
    _expect(source, action, "--action", numbers)
    acted = tuple(action) or _acting(source, numbers, ask)
    observed = tuple(observation) or _observed(source, [name for name in numbers if name not in acted], ask)
    checks = []
    rest = [name for name in numbers if name not in (*acted, *observed) and not BOOKKEEPING.fullmatch(name)]
    if rest:
        checks.append(f"not observed: {', '.join(rest)}; add them under source.observation where a policy needs them")
    seen = _cameras(source, cameras, checks, leave_out=leave_out)
    return Roles(observed, acted, seen, checks)


def _expect(source: Source, named: Sequence[str], option: str, known: Sequence[str]) -> None:
    for name in named:
        if name not in known:
            there = ", ".join(known) or "none"
            raise ConfigError(f"{option} {name}: {source.path} has no such field of its kind; there are: {there}")


def _acting(source: Source, numbers: Sequence[str], ask: Ask | None) -> tuple[str, ...]:
    found = [name for name in numbers if re.split(r"[./]", name)[-1] in ACTIONS]
    if not found:
        found = [name for name in numbers if re.search(r"action|command|cmd", name, re.IGNORECASE)]
    if len(found) == 1:
        return (found[0],)
    return (_asked(source, "which field holds the actions?", found or numbers, "--action", ask),)


def _observed(source: Source, numbers: Sequence[str], ask: Ask | None) -> tuple[str, ...]:
    named = [name for name in numbers if OBSERVED.match(name)]
    if named:
        return tuple(named)
    for name in STATES:
        if name in numbers:
            return (name,)
    rest = [name for name in numbers if not BOOKKEEPING.fullmatch(name)]
    if len(rest) == 1:
        return (rest[0],)
    return (_asked(source, "which field is observed?", rest or numbers, "--observation", ask),)


def _asked(source: Source, question: str, answers: Sequence[str], option: str, ask: Ask | None) -> str:
    if not answers:
        raise ConfigError(f"{source.path}: {question} it has no field of numbers")
    if ask is None:
        readings = " or ".join(f"{option} {name}" for name in answers)
        raise ConfigError(f"{source.path}: {question} The names do not tell; say {readings}")
    return ask(question, answers)


def _cameras(
    source: Source, named: Sequence[str] | None, checks: list[str], *, leave_out: bool
) -> dict[str, CameraRole]:
    known = {name: one for name, one in source.fields.items() if one.kind != "numbers"}
    if named is not None:
        _expect(source, named, "--camera", list(known))
    found: dict[str, CameraRole] = {}
    for name, one in known.items():
        if named is not None and name not in named:
            checks.append(f"camera {name} is not used; add it under source.cameras, or run this again without --camera")
            continue
        missing = sum(name in episode.missing for episode in source.episodes)
        if missing and not leave_out:
            checks.append(
                f"camera {name} is not used: the files of {missing} of {len(source.episodes)} episodes are missing; "
                "--leave-out uses it, and the other episodes"
            )
            continue
        if missing:
            checks.append(f"{missing} of {len(source.episodes)} episodes are left out: they lack files of {name}")
        found[_short(name, found)] = _scaled(one)
    return found


def _scaled(one: Field) -> CameraRole:
    height, width = one.shape[:2]
    if max(height, width) > SMALL:
        height, width = HEIGHT, max(GRID, round(HEIGHT * width / height / GRID) * GRID)
    return CameraRole(one.name, height, width, one.codec if one.kind == "video" else "")


def _short(name: str, taken: dict[str, CameraRole]) -> str:
    """Return a name of one word for a camera, from the last part of its field's name."""
    word = re.sub(r"[^a-z0-9]+", "_", re.split(r"[./]", name)[-1].lower()).strip("_")
    word = (word if re.match(r"[a-z]", word) else f"camera_{word}")[:40]
    return word if word not in taken else f"{word[:36]}_{len(taken) + 1}"
