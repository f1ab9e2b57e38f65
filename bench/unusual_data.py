"""Valid demonstrations that are few, noisy, slow or nameless, and that validation must accept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from bench.wrong_kinds import Kind, Random, steps, stretched, taken
from vqbet.contract import Demonstrations


def variants(demos: Demonstrations, count: int) -> Iterator[tuple[str, Demonstrations]]:
    """Yield `count` valid variants that are small, unusual or noisy, each with its name."""
    random, total = np.random.default_rng(0), len(demos.lengths)
    every = steps(demos)
    for index in range(count):
        size = int(random.integers(5, total + 1)) if index % 2 else int(random.integers(5, min(30, total) + 1))
        chosen = np.sort(random.choice(total, size, replace=False))
        made = taken(demos, [every[episode] for episode in chosen], chosen.tolist())
        name, change = CHANGES[index % len(CHANGES)]
        yield f"{size} episodes, {name}", change(made, random)


def sensor_noise(demos: Demonstrations, random: Random) -> Demonstrations:
    """Add Gaussian noise of a thousandth of each channel's range to the observations."""
    size = 1e-3 * np.ptp(demos.observation, axis=0)
    low, high = np.array([[c.low, c.high] for c in demos.spec.observation], np.float32).T
    noisy = demos.observation + random.normal(size=demos.observation.shape) * size
    return replace(demos, observation=np.clip(noisy.astype(np.float32), low, high))


def float_noise(demos: Demonstrations, random: Random) -> Demonstrations:
    noisy = demos.observation * (1 + 1e-7 * random.normal(size=demos.observation.shape))
    low, high = np.array([[c.low, c.high] for c in demos.spec.observation], np.float32).T
    return replace(demos, observation=np.clip(noisy.astype(np.float32), low, high))


def slower(demos: Demonstrations, random: Random) -> Demonstrations:
    """Make every episode up to a fifth slower."""
    made = stretched(demos, steps(demos), random.uniform(1.0, 1.2, len(demos.lengths)).tolist())
    return made if made.lengths.max() <= 270 else demos


def trimmed(demos: Demonstrations, random: Random) -> Demonstrations:
    """Drop up to three steps at the beginning of each episode."""
    return taken(demos, [rows[int(random.integers(0, 4)) :] for rows in steps(demos)], range(len(demos.lengths)))


def reordered(demos: Demonstrations, random: Random) -> Demonstrations:
    order = random.permutation(len(demos.lengths))
    every = steps(demos)
    return taken(demos, [every[episode] for episode in order], order.tolist())


def action_noise(demos: Demonstrations, random: Random) -> Demonstrations:
    """Add noise of a 50th of each action channel's standard deviation, as from a logger that rounds."""
    low, high = np.array([[c.low, c.high] for c in demos.spec.action], np.float32).T
    noisy = demos.action + random.normal(size=demos.action.shape) * demos.action.std(axis=0) / 50
    return replace(demos, action=np.clip(noisy.astype(np.float32), low, high))


def renamed(demos: Demonstrations, random: Random) -> Demonstrations:
    """Rename the task, so that validation can use only channel names and the data itself."""
    spec = replace(demos.spec, task="own")
    return replace(demos, spec=spec, columns={**demos.columns, "task": np.full(len(demos.lengths), "own")})


def anonymous(demos: Demonstrations, random: Random) -> Demonstrations:
    """Rename the task and its action channels, so that validation learns everything from the data."""
    own = renamed(demos, random)
    actions = tuple(replace(channel, name=f"command{index}") for index, channel in enumerate(own.spec.action))
    return replace(own, spec=replace(own.spec, action=actions))


CHANGES: Sequence[tuple[str, Kind]] = (
    ("as they are", lambda demos, random: demos),
    ("sensor noise", sensor_noise),
    ("float32 noise", float_noise),
    ("up to a fifth slower", slower),
    ("trimmed at the beginning", trimmed),
    ("in another order", reordered),
    ("noise on actions", action_noise),
    ("another task", renamed),
    ("another task, names unknown", anonymous),
    ("another task, sensor noise", lambda demos, random: sensor_noise(anonymous(demos, random), random)),
)
