"""Episodes shared by two versions. Observations and actions identify an episode; order and labels do not matter."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from vqbet.contract import Demonstrations

UNSEEDED = -1


@dataclass(frozen=True, slots=True)
class EpisodeDifference:
    """Episode numbers in the old and in the new store. An episode that occurs twice counts twice.

    changed: the same recording by its labels (`_labels`), with other observations or actions. Episodes that are neither
    kept nor changed are removed or added.
    """

    kept: Int[np.ndarray, "K 2"]  # old, new
    changed: Int[np.ndarray, "M 2"]  # old, new
    removed: Int[np.ndarray, " R"]  # old
    added: Int[np.ndarray, " A"]  # new


@dataclass(frozen=True, slots=True)
class Pool:
    """The U distinct episodes of both versions, in an order that depends on contents alone.

    first: number of the episode among the old episodes followed by the new ones. old, new: its count in each version.
    pairs: places in this pool of changed recordings, before and after; only those where each of the two occurs once.
    """

    first: Int[np.ndarray, " U"]
    old: Int[np.ndarray, " U"]
    new: Int[np.ndarray, " U"]
    pairs: Int[np.ndarray, "M 2"]


def difference(old: Demonstrations, new: Demonstrations) -> EpisodeDifference:
    """Pair episodes by equal content first, then the rest by label, in the order of the stores."""
    before, after = contents(old), contents(new)
    kept, rest_old, rest_new = _paired(before, after, range(len(before)), range(len(after)))
    changed, removed, added = _paired(_labels(old), _labels(new), rest_old, rest_new)
    return EpisodeDifference(
        np.array(kept, np.int64).reshape(-1, 2),
        np.array(changed, np.int64).reshape(-1, 2),
        np.array(removed, np.int64),
        np.array(added, np.int64),
    )


def pool(old: Demonstrations, new: Demonstrations, changed: Int[np.ndarray, "M 2"]) -> Pool:
    """Return the distinct episodes of both versions; changed: from their `difference`."""
    before = contents(old)
    distinct, first, inverse = np.unique([*before, *contents(new)], return_index=True, return_inverse=True)
    counts = [np.bincount(part, minlength=len(distinct)) for part in np.split(inverse, [len(before)])]
    pairs = inverse[changed + np.array([0, len(before)])].reshape(-1, 2)
    once = (counts[0] + counts[1] == 1)[pairs].all(axis=1)
    return Pool(first, counts[0], counts[1], pairs[once][np.argsort(pairs[once, 0])])


def contents(demos: Demonstrations) -> list[str]:
    """Return a digest of the observations and actions of every episode."""
    found = []
    for start, end in zip(demos.episode_starts, demos.episode_ends, strict=True):
        content = hashlib.blake2b(f"{end - start}:".encode(), digest_size=16)
        content.update(demos.observation[start:end].tobytes())
        content.update(demos.action[start:end].tobytes())
        found.append(content.hexdigest())
    return found


def _labels(demos: Demonstrations) -> list[Hashable]:
    """Return the identity of each recording, independent of its content: session, source and seed.

    Recordings without a seed are distinguished by their place among those of the same session and source: if one of
    them is removed and another one edited, the edited one counts as removed and added.
    """
    columns = (demos.columns[name].tolist() for name in ("session", "source", "seed"))
    seen: Counter[Hashable] = Counter()
    found: list[Hashable] = []
    for label in zip(*columns, strict=True):
        found.append((*label, seen[label]) if label[-1] == UNSEEDED else (*label, 0))
        seen[label] += 1
    return found


def _paired(
    before: Sequence[Hashable], after: Sequence[Hashable], old: Sequence[int], new: Sequence[int]
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Return pairs of numbers with equal keys, first with first, and the numbers left over on either side."""
    waiting: dict[Hashable, list[int]] = defaultdict(list)
    for number in reversed(new):
        waiting[after[number]].append(number)
    pairs = [(number, waiting[before[number]].pop()) for number in old if waiting[before[number]]]
    taken_old, taken_new = {one for one, _ in pairs}, {two for _, two in pairs}
    return pairs, [one for one in old if one not in taken_old], [two for two in new if two not in taken_new]
