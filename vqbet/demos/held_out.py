"""Held-out episodes: those that no policy of a task learns from, so that errors on them say something about new ones.

Episodes are chosen by their content and not by their number: copies are on one side, and an episode keeps its rank when
the data is extended or ordered anew (docs/decisions/0020). Whole sessions can be held out in addition, since episodes
of one session resemble each other in what nobody wrote down: light, posture, calibration.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from vqbet.contract import Demonstrations, ValidationError
from vqbet.demos import selection
from vqbet.demos.picked import Picked

LISTED = 3  # leaked episodes in one sentence


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Demonstrations to learn from, and the numbers of the episodes that are held out, in the numbering before.

    episodes: chosen by content. sessions: of the newest sessions; no episode is in both.
    """

    train: Demonstrations
    episodes: Int[np.ndarray, " E1"]
    sessions: Int[np.ndarray, " E2"]


def split(demos: Demonstrations, share: float = 0.0, *, newest_sessions: int = 0) -> HeldOut:
    """Return the demonstrations cut into those to learn from and those held out.

    newest_sessions: number of sessions, the last ones of the store, whose episodes are all held out. share: of the
    other episodes, those with the lowest sha256 of their content; at least one where the share is not 0. Where nothing
    is held out, `train` is `demos` itself. Raises ValidationError where nothing would be left to learn from, or a
    held-out episode is one that is learned from, or the beginning of one.
    """
    nobody = np.zeros(0, np.int64)
    if not share and not newest_sessions:
        return HeldOut(demos, nobody, nobody)
    sessions = _newest(demos, newest_sessions) if newest_sessions else nobody
    rest = np.setdiff1d(np.arange(len(demos.episode_ends)), sessions)
    episodes = _lowest(demos, rest, share) if share else nobody
    learned = np.setdiff1d(rest, episodes)
    _refuse_leaks(demos, learned, np.concatenate([episodes, sessions]))
    return HeldOut(chosen(demos, learned), episodes, sessions)


def learned(demos: Demonstrations, said: Mapping[str, Any]) -> HeldOut:
    """Return the split that a provenance, or `DemosParams.learned`, describes; excluded episodes are in no part of it.

    Raises as `split` and `selection.kept`.
    """
    share, newest = said.get("held_out", 0.0), said.get("held_out_sessions", 0)
    exclude = said.get("exclude", ())
    if not exclude:
        return split(demos, share, newest_sessions=newest)
    kept = selection.kept(demos, exclude)
    found = split(chosen(demos, kept), share, newest_sessions=newest)
    return HeldOut(found.train, kept[found.episodes], kept[found.sessions])


def contents(demos: Demonstrations) -> list[str]:
    """Return the sha256 of each episode: of its observations and actions, little-endian float32, in this order."""
    arrays = [array.astype("<f4", copy=False) for array in (demos.observation, demos.action)]
    cuts = zip(demos.episode_starts, demos.episode_ends, strict=True)
    return [hashlib.sha256(b"".join(array[start:end].tobytes() for array in arrays)).hexdigest() for start, end in cuts]


def chosen(demos: Demonstrations, episodes: Int[np.ndarray, " E1"]) -> Demonstrations:
    """Return these episodes, in this order, as demonstrations of the same store."""
    starts, ends = demos.episode_starts[episodes], demos.episode_ends[episodes]
    parts = [np.arange(start, end) for start, end in zip(starts, ends, strict=True)]
    steps = np.concatenate([np.zeros(0, np.int64), *parts])
    return replace(
        demos,
        observation=demos.observation[steps],
        action=demos.action[steps],
        time_s=demos.time_s[steps],
        episode_ends=np.cumsum(ends - starts, dtype=np.int64),
        columns={name: column[episodes] for name, column in demos.columns.items()},
        state=None if demos.state is None else demos.state[steps],
        intervention=None if demos.intervention is None else demos.intervention[steps],
        cameras={name: Picked(frames, steps) for name, frames in demos.cameras.items()},
    )


def _newest(demos: Demonstrations, count: int) -> Int[np.ndarray, " E2"]:
    """Return the episodes of the newest sessions; sessions are in the order of their first episodes."""
    labels = np.asarray(demos.columns["session"]).astype(str)
    known = list(dict.fromkeys(labels.tolist()))
    if count >= len(known):
        raise ValidationError(
            f"demos.held_out_sessions: {count} sessions cannot be held out: the {len(labels)} demonstrations of "
            f"{demos.spec.task!r} are of {len(known)} ({', '.join(repr(name) for name in known[:LISTED])}"
            f"{', ...' if len(known) > LISTED else ''}), and one must be left to learn from; lower it"
        )
    return np.flatnonzero(np.isin(labels, known[-count:]))


def _lowest(demos: Demonstrations, rest: Int[np.ndarray, " E1"], share: float) -> Int[np.ndarray, " E2"]:
    """Return the share of the episodes `rest` with the lowest sha256; an episode brings its copies along."""
    every = contents(demos)
    hashes = np.array([every[episode] for episode in rest])
    wanted = max(1, round(share * len(rest)))
    if len(np.unique(hashes)) < 2 or (hashes <= np.sort(hashes)[wanted - 1]).all():
        raise ValidationError(
            f"demos.held_out: {share:g} of {len(rest)} episodes of {demos.spec.task!r} are {wanted} with their copies, "
            "and none would be left to learn from; lower it, or record more episodes"
        )
    return rest[hashes <= np.sort(hashes)[wanted - 1]]


def _refuse_leaks(demos: Demonstrations, train: Int[np.ndarray, " E1"], held: Int[np.ndarray, " E2"]) -> None:
    """Raise ValidationError naming held-out episodes that are learned from, whole or in part."""
    beginnings = _beginnings(demos, train)
    leaks = [sentence for episode in held if (sentence := _leak(demos, int(episode), beginnings))]
    if leaks:
        more = f"; and {len(leaks) - LISTED} more" if len(leaks) > LISTED else ""
        raise ValidationError(
            f"demos.held_out: what is held out from learning {demos.spec.task!r} is learned from: "
            f"{'; '.join(leaks[:LISTED])}{more}; drop one of each pair (validation lists copies)"
        )


def _beginnings(demos: Demonstrations, train: Int[np.ndarray, " E1"]) -> dict[bytes, list[int]]:
    """Return the training episodes by their first step: few others can begin alike."""
    found = defaultdict[bytes, list[int]](list)
    for episode in train:
        found[_step(demos, int(demos.episode_starts[episode]))].append(int(episode))
    return found


def _step(demos: Demonstrations, step: int) -> bytes:
    return demos.observation[step].tobytes() + demos.action[step].tobytes()


def _leak(demos: Demonstrations, held: int, train: Mapping[bytes, list[int]]) -> str:
    """Return a clause where a held-out episode equals a training episode, or one is the beginning of the other."""
    start, length = int(demos.episode_starts[held]), int(demos.lengths[held])
    for other in train.get(_step(demos, start), ()):
        begin, theirs = int(demos.episode_starts[other]), int(demos.lengths[other])
        shared = min(length, theirs)
        if all(
            array[start : start + shared].tobytes() == array[begin : begin + shared].tobytes()
            for array in (demos.observation, demos.action)
        ):
            how = "is" if length == theirs else "begins like all of" if length > theirs else "is the beginning of"
            return f"episode {held} {how} training episode {other}, bit for bit over {shared} steps"
    return ""
