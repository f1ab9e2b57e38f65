"""Kinds of wrong but well-formed demonstrations, each a function of valid ones and a random generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vqbet.contract import Demonstrations

Random = np.random.Generator
Kind = Callable[[Demonstrations, Random], Demonstrations]


def taken(demos: Demonstrations, pieces: Sequence[np.ndarray], episodes: Sequence[int]) -> Demonstrations:
    """Return the steps of `pieces` as new episodes at the control rate, each with the columns of one of `episodes`."""
    rows, lengths = np.concatenate(pieces), np.array([len(piece) for piece in pieces])
    columns = {name: column[np.asarray(episodes)] for name, column in demos.columns.items()}
    seeds, again = columns["seed"].copy(), np.ones(len(lengths), bool)
    again[np.unique(seeds, return_index=True)[1]] = False
    seeds[again] = -1
    return replace(
        demos,
        observation=demos.observation[rows],
        action=demos.action[rows],
        time_s=np.concatenate([np.arange(length) for length in lengths]) / demos.spec.control_hz,
        episode_ends=np.cumsum(lengths, dtype=np.int64),
        columns=columns | {"seed": seeds},
        state=None,
    )


def steps(demos: Demonstrations) -> list[np.ndarray]:
    """Return the step indices of each episode."""
    return [np.arange(*span) for span in zip(demos.episode_starts, demos.episode_ends, strict=True)]


def cut(change: Callable[[np.ndarray], np.ndarray]) -> Kind:
    """Return a kind that applies `change` to the step indices of every episode."""
    return lambda demos, random: taken(demos, [change(rows) for rows in steps(demos)], range(len(demos.lengths)))


def acted(change: Callable[[np.ndarray, Demonstrations, Random], np.ndarray]) -> Kind:
    """Return a kind that applies `change` to the actions (T, A) of every episode."""

    def kind(demos: Demonstrations, random: Random) -> Demonstrations:
        parts = [change(demos.action[rows].astype(np.float64), demos, random) for rows in steps(demos)]
        return replace(demos, action=np.concatenate(parts).astype(np.float32))

    return kind


def seen(change: Callable[[np.ndarray, Demonstrations, Random], np.ndarray]) -> Kind:
    """Return a kind that applies `change` to all observations (N, D)."""
    return lambda demos, random: replace(
        demos, observation=change(demos.observation.astype(np.float64), demos, random).astype(np.float32)
    )


def some(kind: Kind, every: int = 10) -> Kind:
    """Return a kind that applies `kind`, which must keep lengths, to every tenth episode only."""

    def mixed(demos: Demonstrations, random: Random) -> Demonstrations:
        wrong = kind(demos, random)
        mask = np.repeat(np.arange(len(demos.lengths)) % every == 3, demos.lengths)[:, None]
        return replace(
            demos,
            observation=np.where(mask, wrong.observation, demos.observation),
            action=np.where(mask, wrong.action, demos.action),
            state=None,
        )

    return mixed


def mirrored(values: np.ndarray, demos: Demonstrations, columns: slice = slice(None)) -> np.ndarray:
    """Return actions mirrored at 0 if they are relative, else at the middle of their range."""
    middle = np.array([(c.low + c.high) / 2 if demos.spec.action_kind == "absolute" else 0 for c in demos.spec.action])
    out = values.copy()
    out[:, columns] = 2 * middle[columns] - values[:, columns]
    return out


def shifted(by: int) -> Kind:
    """Return a kind with actions `by` steps too late (above 0) or too early; gaps are filled with the nearest one."""
    return acted(lambda a, demos, random: a[np.clip(np.arange(len(a)) - by, 0, len(a) - 1)])


def elsewhere(demos: Demonstrations, random: Random) -> Demonstrations:
    """Take the actions from the episode 7 places further on, at the same share of its length."""
    every = steps(demos)
    rows = []
    for index, own in enumerate(every):
        other = every[(index + 7) % len(every)]
        rows.append(other[np.linspace(0, len(other) - 1, len(own)).round().astype(int)])
    return replace(demos, action=demos.action[np.concatenate(rows)])


def copies(noise: float, *, half: bool = False, speed: float = 1.0) -> Kind:
    """Return a kind with copies of one episode, or, with `half`, every other episode replaced by its neighbour.

    noise: standard deviation as a share of each range.
    """

    def kind(demos: Demonstrations, random: Random) -> Demonstrations:
        every, count = steps(demos), len(demos.lengths)
        source = np.arange(count) // 2 * 2 if half else np.zeros(count, int)
        pieces = [every[index] for index in source]
        made = taken(demos, pieces, range(count))
        if speed != 1:
            made = stretched(demos, pieces, [speed if index % 2 else 1.0 for index in range(count)])
        size = np.array([c.high - c.low for c in demos.spec.observation])
        size = np.where(np.isfinite(size), np.minimum(size, np.ptp(demos.observation, axis=0)), 1)
        again = np.repeat(np.arange(count) != source if half else np.arange(count) > 0, made.lengths)[:, None]
        noisy = made.observation + again * random.normal(scale=noise, size=made.observation.shape) * size
        low, high = np.array([[c.low, c.high] for c in demos.spec.observation]).T
        return replace(made, observation=np.clip(noisy, low + 1e-6, high - 1e-6).astype(np.float32))

    return kind


def stretched(demos: Demonstrations, pieces: Sequence[np.ndarray], speeds: Sequence[float]) -> Demonstrations:
    """Return episodes at other speeds: observations interpolated, relative actions divided among the steps."""
    observation, action, lengths = [], [], []
    for rows, speed in zip(pieces, speeds, strict=True):
        place = np.linspace(0, len(rows) - 1, round(len(rows) * speed))
        both = [
            np.stack([np.interp(place, np.arange(len(rows)), column) for column in array[rows].T], axis=1)
            for array in (demos.observation, demos.action)
        ]
        observation.append(both[0])
        action.append(both[1] / (speed if demos.spec.action_kind == "relative" else 1))
        lengths.append(len(place))
    made = taken(demos, [np.zeros(length, int) for length in lengths], range(len(lengths)))
    return replace(
        made,
        observation=np.concatenate(observation).astype(np.float32),
        action=np.concatenate(action).astype(np.float32),
    )


def glued(demos: Demonstrations, random: Random) -> Demonstrations:
    """Join halves of different episodes into one."""
    every = steps(demos)
    after = [*every[1:], every[0]]
    pieces = [
        np.concatenate([own[: len(own) // 2], other[len(other) // 2 :]])
        for own, other in zip(every, after, strict=True)
    ]
    return taken(demos, pieces, range(len(every)))


OBJECTS: Mapping[str, tuple[str, ...]] = {
    "blockpush": ("block",),
    "pusht": ("keypoint",),
    "kitchen": ("slide", "microwave", "kettle", "light"),
}


def unmoved(demos: Demonstrations, random: Random) -> Demonstrations:
    """Keep the task's objects at their first positions in every other episode."""
    mark = np.array(
        [c.name.startswith(OBJECTS.get(demos.spec.task, ("block", "kRight"))) for c in demos.spec.observation]
    )
    first = demos.observation[np.repeat(demos.episode_starts, demos.lengths)]
    other = np.repeat(np.arange(len(demos.lengths)) % 2 == 1, demos.lengths)[:, None]
    return replace(demos, observation=np.where(mark & other, first, demos.observation))


def failed(demos: Demonstrations, random: Random) -> Demonstrations:
    label = demos.columns["success"].copy()
    label[::2] = False
    return replace(demos, columns={**demos.columns, "success": label})


def swapped(values: np.ndarray, demos: Demonstrations, random: Random) -> np.ndarray:
    """Swap x and y of everything; without x and y, swap neighbouring channels of one unit."""
    order = np.arange(values.shape[1])
    names = [channel.name for channel in demos.spec.observation]
    if any(name.endswith("_x") for name in names[:2]):
        other = {"_x": "_y", "_y": "_x"}
        order = np.array([names.index(name[:-2] + other.get(name[-2:], name[-2:])) for name in names])
    else:
        order[:6] = order[[1, 0, 3, 2, 5, 4]]
    return values[:, order]


def saturated(values: np.ndarray, demos: Demonstrations, random: Random) -> np.ndarray:
    """Scale commands so that a third of them is clipped at the limits."""
    low, high = np.array([[c.low, c.high] for c in demos.spec.action]).T
    middle, reach = (low + high) / 2, np.quantile(np.abs(values - (low + high) / 2), 0.66, axis=0)
    return np.clip(middle + (values - middle) * (high - low) / 2 / np.maximum(reach, 1e-9), low, high)


def noise(values: np.ndarray, demos: Demonstrations, random: Random) -> np.ndarray:
    low, high = np.array([[c.low, c.high] for c in demos.spec.action]).T
    spread = demos.action.std(axis=0)
    return np.clip(demos.action.mean(axis=0) + random.normal(size=values.shape) * spread, low, high)


def still(values: np.ndarray, demos: Demonstrations, random: Random) -> np.ndarray:
    return np.tile(values[:1], (len(values), 1))


def faint(values: np.ndarray, demos: Demonstrations, random: Random) -> np.ndarray:
    out = values.copy()
    out[:, 0] = demos.action[0, 0] + 1e-6 * random.normal(size=len(values))
    return out


def dead(values: np.ndarray, demos: Demonstrations, random: Random) -> np.ndarray:
    out = values.copy()
    out[:, 0] = demos.action[0, 0]
    return out


def not_a_number(values: np.ndarray, demos: Demonstrations, random: Random) -> np.ndarray:
    out = values.copy()
    out[len(out) // 2, 0] = np.nan
    return out


def session(values: np.ndarray, demos: Demonstrations, random: Random) -> np.ndarray:
    """Offset the second half of the episodes by 5 % of the range, as by a camera moved between two sessions."""
    moved = np.repeat(np.arange(len(demos.lengths)) >= len(demos.lengths) // 2, demos.lengths)[:, None]
    low, high = np.array([[c.low, c.high] for c in demos.spec.observation]).T
    return np.clip(values + moved * 0.05 * np.ptp(demos.observation, axis=0), low, high)


def operator(demos: Demonstrations, random: Random) -> Demonstrations:
    return replace(demos, columns={**demos.columns, "operator": np.full(len(demos.lengths), "?????")})


def column_swap(values: np.ndarray, demos: Demonstrations, random: Random) -> np.ndarray:
    return values[:, [1, 0, *range(2, values.shape[1])]]


KINDS: Mapping[str, Kind] = {
    "actions / 1000": acted(lambda a, d, r: a / 1000),
    "actions / 3": acted(lambda a, d, r: a / 3),
    "actions x 57.3": acted(lambda a, d, r: a * 57.3),
    "actions in mm": acted(lambda a, d, r: a * 1000),
    "two action channels swapped": acted(column_swap),
    "one action's sign": acted(lambda a, d, r: mirrored(a, d, slice(0, 1))),
    "all actions' signs": acted(lambda a, d, r: mirrored(a, d)),
    "actions 1 step late": shifted(1),
    "actions 1 step early": shifted(-1),
    "actions 5 steps late": shifted(5),
    "actions 5 steps early": shifted(-5),
    "actions shuffled in the episode": acted(lambda a, d, r: r.permutation(a)),
    "actions of another episode": elsewhere,
    "actions are noise": acted(noise),
    "actions constant in each episode": acted(still),
    "one action channel constant": acted(dead),
    "one action channel 1e-6 noise": acted(faint),
    "actions reversed in time": acted(lambda a, d, r: a[::-1]),
    "actions held for 4 steps": acted(lambda a, d, r: a[np.arange(len(a)) // 4 * 4]),
    "actions with noise of their size": acted(lambda a, d, r: a + (noise(a, d, r) - d.action.mean(axis=0)) * 1.5),
    "actions saturated": acted(saturated),
    "an action is NaN": acted(not_a_number),
    "an observation is NaN": seen(lambda o, d, r: np.where(np.arange(o.size).reshape(o.shape) == 777, np.nan, o)),
    "observed x and y swapped": seen(swapped),
    "observations / 1000": seen(lambda o, d, r: o / 1000),
    "observations' signs": seen(lambda o, d, r: -o),
    "observations shuffled in the set": seen(lambda o, d, r: r.permutation(o)),
    "time reversed": cut(lambda rows: rows[::-1]),
    "exact copies of one episode": copies(0.0),
    "copies of one with 1e-5 noise": copies(1e-5),
    "half of it duplicated with 1e-3 noise": copies(1e-3, half=True),
    "half of it duplicated 1.25 times slower": copies(0.0, half=True, speed=1.25),
    "second halves cut off": cut(lambda rows: rows[: len(rows) // 2]),
    "first halves cut off": cut(lambda rows: rows[len(rows) // 2 :]),
    "every second step dropped": cut(lambda rows: rows[::2]),
    "every step repeated": cut(lambda rows: np.repeat(rows, 2)),
    "two episodes glued into one": glued,
    "nothing moves, but success": unmoved,
    "half of it failed": failed,
    "one session's camera moved": seen(session),
    "rounded to float16": lambda d, r: replace(
        d,
        observation=d.observation.astype(np.float16).astype(np.float32),
        action=d.action.astype(np.float16).astype(np.float32),
    ),
    "odd operator name": operator,
    "one episode in ten: another's actions": some(elsewhere),
    "one episode in ten: actions 3 late": some(shifted(3)),
    "one episode in ten: actions' signs": some(acted(lambda a, d, r: mirrored(a, d))),
    "one episode in ten: actions x 3": some(acted(lambda a, d, r: a * 3)),
    "one episode in ten: constant actions": some(acted(still)),
}
