"""Checks of pictures; each finding names camera, episode and step. Without cameras they find nothing.

A picture is judged against the motion beside it and against the other episodes, never against a taste. What cannot be
told from the data is not reported: a robot that stands still may repeat pictures, and pictures that do not follow the
motion cannot show that they are late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from vqbet.demos.validation import pictures, tables
from vqbet.demos.validation.findings import Finding, in_steps
from vqbet.demos.validation.measured import Measured
from vqbet.demos.validation.pictures import Seen

ALL = 0.99  # share of points: the whole picture
BURNT = 0.5  # of what is not burnt out in the other pictures
FROZEN_S, FROZEN_STEPS = 1.0, 5  # a camera that shows one picture for longer, while the robot moves ...
FROZEN_MOVED = 0.02  # ... by this share of a channel's travel, stood still
COPIED = 0.5  # share of an episode's pictures
CLOSER = 0.5  # times its own distance: an episode so much closer to another camera is that camera's
FLOOR = 2.0  # grey levels: mean pictures that are less far apart are alike
LEAST_EPISODES = 4  # for the other episodes to be a rule
COLOURED = 0.5  # likeness of colours of the median episode with the rule, for a rule
FLIPPED = -0.3  # likeness at which red and blue are exchanged
FOLLOWS = 0.5  # correlation of pictures with motion from which their lag is known ...
MOST = 0.5  # share of episodes in which it is known
LATE = 0.1  # ... and by how much another lag must fit better


def blank_pictures(measured: Measured) -> Iterator[Finding]:
    """Check that no picture is black or has a single colour."""
    for field, seen in _cameras(measured):
        ends = measured.demos.episode_ends
        black = seen.black >= ALL
        yield from in_steps(ends, field, black, lambda i: "is black")
        yield from in_steps(ends, field, seen.plain & ~black & (seen.burnt < ALL), lambda i: "has a single colour")


def burnt_pictures(measured: Measured) -> Iterator[Finding]:
    """Check that no picture is over-exposed: white, or much more of it than of the others in the set."""
    for field, seen in _cameras(measured):
        yield from _burnt(measured, field, seen)


def _burnt(measured: Measured, field: str, seen: Seen) -> Iterator[Finding]:
    usual, exchanged = float(np.median(seen.burnt)), _exchanged(measured, field)[tables.episode_of_step(measured.demos)]
    burnt = ~exchanged & (seen.burnt >= (ALL if usual >= ALL else min(ALL, usual + BURNT * (1 - usual))))
    text = f"of its points white (usually {usual:.0%}), so is over-exposed,"
    yield from in_steps(measured.demos.episode_ends, field, burnt, lambda i: f"has {seen.burnt[i]:.0%} {text}")


def frozen_pictures(measured: Measured) -> Iterator[Finding]:
    """Check that no camera shows one picture for long while the robot moves."""
    for field, seen in _cameras(measured):
        yield from _frozen(measured, field, seen)


def _frozen(measured: Measured, field: str, seen: Seen) -> Iterator[Finding]:
    starts, ends = _stretches(measured, seen)
    marked = np.zeros(len(seen.same), bool)
    marked[starts] = True
    steps = dict(zip(starts.tolist(), (ends - starts).tolist(), strict=True))
    text = "steps, while the robot moves, so it stood still,"
    yield from in_steps(
        measured.demos.episode_ends, field, marked, lambda i: f"shows the same picture for {steps[i]} {text}"
    )


def repeated_pictures(measured: Measured) -> Iterator[Finding]:
    """Check for single pictures that are shown again while the robot moves: dropped frames, or a slower camera."""
    moved = pictures.moves(measured.demos).max(axis=1) > pictures.MOVED
    for field, seen in _cameras(measured):
        yield from _repeated(measured, field, seen, moved)


def _repeated(measured: Measured, field: str, seen: Seen, moved: Bool[np.ndarray, " N"]) -> Iterator[Finding]:
    again = seen.same & moved
    for start, end in zip(*_stretches(measured, seen), strict=True):
        again[start:end] = False
    share = again.sum() / max(moved.sum(), 1)
    text = f"shows the picture of the step before while the robot moves ({share:.1%} of such steps)"
    yield from in_steps(measured.demos.episode_ends, field, again, lambda i: text, "advice")


def copied_pictures(measured: Measured) -> Iterator[Finding]:
    """Check that no episode has the pictures of another one, unless it is a copy of it altogether."""
    for field, seen in _cameras(measured):
        yield from _copied(measured, field, seen)


def _copied(measured: Measured, field: str, seen: Seen) -> Iterator[Finding]:
    of, share = _copies(seen, tables.episode_of_step(measured.demos), len(measured.demos.episode_ends))
    marked = (share >= COPIED) & (np.asarray(measured.episodes["copy_of"]) < 0)
    yield from _in_whole(measured, field, marked, lambda e: f"is that of episode {of[e]} in {share[e]:.0%} of steps,")


def swapped_cameras(measured: Measured) -> Iterator[Finding]:
    """Check that no two cameras are exchanged in an episode, by its mean pictures against those of the set."""
    for one, two in combinations(measured.pictures, 2):
        text = f"is that of camera {two!r}, and the other way round,"
        yield from _in_whole(measured, f"camera.{one}", _exchanged_pair(measured, one, two), partial(_text, text))


def swapped_colours(measured: Measured) -> Iterator[Finding]:
    """Check that red and blue are not exchanged (RGB, BGR) in an episode against the set."""
    if len(measured.demos.episode_ends) < LEAST_EPISODES:
        return
    for field, seen in _cameras(measured):
        colour = (seen.mean[..., 0] - seen.mean[..., 2]).reshape(len(seen.mean), -1)  # (E, cells)
        usual = np.median(colour, axis=0)
        size = np.linalg.norm(colour, axis=1) * np.linalg.norm(usual)
        alike = np.divide(colour @ usual, size, out=np.zeros(len(colour)), where=size > 0)
        if np.median(alike) >= COLOURED:
            text, marked = "has red and blue exchanged (BGR for RGB), unlike the others,", alike <= FLIPPED
            yield from _in_whole(measured, field, marked & ~_exchanged(measured, field), partial(_text, text))


def late_pictures(measured: Measured) -> Iterator[Finding]:
    """Check that pictures change when the robot moves, and not some steps later or earlier: in an episode, or half."""
    motion = np.linalg.norm(pictures.moves(measured.demos), axis=1)
    for field, seen in _cameras(measured):
        yield from _late(measured, field, seen, motion)


def _late(measured: Measured, field: str, seen: Seen, motion: Float[np.ndarray, " N"]) -> Iterator[Finding]:
    demos = measured.demos
    starts, ends, middle = demos.episode_starts, demos.episode_ends, (demos.episode_starts + demos.episode_ends) // 2
    whole, first, second = (
        pictures.lags(seen.change, motion, np.stack(span, axis=1))
        for span in ((starts, ends), (starts, middle), (middle, ends))
    )
    following = whole.max(axis=1) >= FOLLOWS
    if following.sum() < min(LEAST_EPISODES, len(whole)) or following.mean() < MOST:
        return
    usual = round(float(np.median(whole[following].argmax(axis=1)))) - pictures.LAGS
    off, before, after = (_off(found, usual) for found in (whole, first, second))
    lost = (before == 0) & (after != 0)
    late = (off != 0) & ~lost
    yield from _in_whole(measured, field, late, lambda e: f"is {_said(measured, off[e])} the motion beside it,")
    marked = np.zeros(len(motion), bool)
    marked[middle[lost]] = True
    episode = tables.episode_of_step(demos)
    text = "the motion from here on, and not before, so pictures were lost or doubled,"
    yield from in_steps(ends, field, marked, lambda i: f"is {_said(measured, after[episode[i]])} {text}")
    if usual:
        text = f"{field} is {_said(measured, usual)} the motion in most episodes, first at episode 0, step 0"
        yield Finding(field, text, 0, 0, "advice")


def _in_whole(
    measured: Measured, field: str, marked: Bool[np.ndarray, " E"], message: Callable[[int], str]
) -> Iterator[Finding]:
    """Yield one finding for all marked episodes, at the first step of the first; `message` receives its number."""
    steps, episode = np.zeros(len(measured.demos.action), bool), tables.episode_of_step(measured.demos)
    steps[measured.demos.episode_starts[marked]] = True
    yield from in_steps(measured.demos.episode_ends, field, steps, lambda i: message(int(episode[i])))


def _text(text: str, _: int) -> str:
    return text


def _cameras(measured: Measured) -> Iterator[tuple[str, Seen]]:
    for name, seen in measured.pictures.items():
        yield f"camera.{name}", seen


def _stretches(measured: Measured, seen: Seen) -> tuple[Int[np.ndarray, " R"], Int[np.ndarray, " R"]]:
    """Return first step and one past the last of each stretch of one picture during which the robot moves."""
    demos = measured.demos
    edges = np.flatnonzero(np.diff(seen.same, prepend=False, append=False))
    starts, ends = edges[::2] - 1, edges[1::2]  # the picture that is repeated counts
    least = max(FROZEN_STEPS, round(FROZEN_S * demos.spec.control_hz))
    long = ends - starts >= least
    starts, ends = starts[long], ends[long]
    travel = np.ptp(demos.observation, axis=0)
    moved = [
        (np.ptp(demos.observation[start:end], axis=0) > FROZEN_MOVED * travel)[travel > 0].any()
        for start, end in zip(starts, ends, strict=True)
    ]
    kept = np.array(moved, bool)
    return starts[kept], ends[kept]


def _copies(
    seen: Seen, episode: Int[np.ndarray, " N"], episodes: int
) -> tuple[Int[np.ndarray, " E"], Float[np.ndarray, " E"]]:
    """Return of each episode the earlier one that shares most pictures with it, and the share; -1 and 0 for none."""
    blank = (seen.black >= ALL) | (seen.burnt >= ALL) | seen.plain
    places = np.flatnonzero(~blank & ~seen.same)
    _, first, inverse = np.unique(seen.content[places], return_index=True, return_inverse=True)
    origin, own = episode[places[first]][inverse], episode[places]
    pairs, counts = np.unique(np.stack([own, origin])[:, origin < own], axis=1, return_counts=True)
    of, share = np.full(episodes, -1), np.zeros(episodes)
    different = np.maximum(np.bincount(own, minlength=episodes), 1)
    for place in np.argsort(counts, kind="stable"):
        later, earlier = pairs[:, place]
        of[later], share[later] = earlier, counts[place] / different[later]
    return of, share


def _exchanged(measured: Measured, field: str) -> Bool[np.ndarray, " E"]:
    """Return the episodes in which this camera is exchanged with another one."""
    own, found = field.removeprefix("camera."), np.zeros(len(measured.demos.episode_ends), bool)
    for other in measured.pictures.keys() - {own}:
        found |= _exchanged_pair(measured, own, other)
    return found


def _exchanged_pair(measured: Measured, one: str, two: str) -> Bool[np.ndarray, " E"]:
    """Return the episodes in which each of two cameras looks like the other one usually does."""
    left, right = measured.pictures[one].mean, measured.pictures[two].mean
    if len(left) < LEAST_EPISODES:
        return np.zeros(len(left), bool)
    first, second = np.median(left, axis=0), np.median(right, axis=0)
    own = _apart(left, first) + _apart(right, second)
    found: Bool[np.ndarray, " E"] = (_apart(left, second) + _apart(right, first) < CLOSER * own) & (own > FLOOR)
    return found


def _apart(mean: Float[np.ndarray, "E cells cells 3"], usual: Float[np.ndarray, "cells cells 3"]) -> np.ndarray:
    """Return the mean absolute difference of each episode's mean picture, grey levels."""
    return np.abs(mean - usual).mean(axis=(1, 2, 3))


def _off(found: Float[np.ndarray, "S lags"], usual: int) -> Int[np.ndarray, " S"]:
    """Return by how many steps each stretch has another lag than the usual one; 0 where that is not certain."""
    best = found.argmax(axis=1)
    top = found.max(axis=1)
    certain: Bool[np.ndarray, " S"] = (top >= FOLLOWS) & (top >= found[:, usual + pictures.LAGS] + LATE)
    return np.where(certain, best - pictures.LAGS - usual, 0)


def _said(measured: Measured, steps: int) -> str:
    count = f"{abs(steps)} {'step' if abs(steps) == 1 else 'steps'} ({abs(steps) / measured.demos.spec.control_hz:g} s)"
    return f"{count} behind" if steps > 0 else f"{count} ahead of"
