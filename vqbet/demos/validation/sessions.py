"""Sessions that begin elsewhere than the others: another posture, another calibration, a table that was moved.

Such demonstrations are fit for training. But what is learned from one session says little about another one, and an
error that is measured on held-out episodes of the same sessions hides it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from vqbet.demos.validation.findings import NAMED, Finding
from vqbet.demos.validation.measured import Measured

LEAST = 5  # episodes of a block
FAR = 1.5  # standard deviations of the channel, over all steps, between the means of two blocks ...
SURE = 8.0  # ... and standard errors: chance reaches half of it at the best of all splits of a hundred episodes
NEARLY = 0.8  # of a channel's most standard errors: then it is counted to the block of another channel


class Elsewhere(NamedTuple):
    """A channel whose episodes begin elsewhere in a block. deviations: signed, of the channel over all steps."""

    channel: int
    sure: float
    here: float
    elsewhere: float
    deviations: float


def sessions(measured: Measured) -> Iterator[Finding]:
    """Check that episodes of every session begin in the same place; without sessions, late ones where early ones do."""
    demos = measured.demos
    first = demos.observation[demos.episode_starts].astype(np.float64)
    spread = measured.channels["deviation"][measured.channels["kind"] == "observation"]
    labels = np.asarray(demos.columns["session"]).astype(str)
    names = list(dict.fromkeys(labels.tolist()))
    if len(names) > 1:
        blocks = {f"in session {name!r}": labels == name for name in names}
    else:
        blocks = {
            f"from episode {cut} on": np.arange(len(first)) >= cut for cut in range(LEAST, len(first) - LEAST + 1)
        }
    found = _grouped([(name, shift) for name, block in blocks.items() for shift in _shifts(first, spread, block)])
    for name, each in found.items():
        yield _finding(measured, name, int(np.argmax(blocks[name])), each)


def _grouped(shifts: list[tuple[str, Elsewhere]]) -> dict[str, list[Elsewhere]]:
    """Return each channel's shift under the block where it is surest, or nearly so where another channel is surest."""
    best: dict[int, float] = {}
    for _, shift in shifts:
        best[shift.channel] = max(best.get(shift.channel, 0.0), shift.sure)
    found, taken = defaultdict[str, list[Elsewhere]](list), set[int]()
    for name, _ in sorted(shifts, key=lambda each: -each[1].sure):
        for other, shift in shifts:
            if other == name and shift.channel not in taken and shift.sure >= NEARLY * best[shift.channel]:
                taken.add(shift.channel)
                found[name].append(shift)
    return found


def _shifts(
    first: Float[np.ndarray, "E D"], spread: Float[np.ndarray, " D"], block: Bool[np.ndarray, " E"]
) -> Iterator[Elsewhere]:
    """Yield the channels whose mean of the first observations of a block lies far from that of the other episodes."""
    if min(block.sum(), (~block).sum()) < LEAST:
        return
    one, two = first[block], first[~block]
    with np.errstate(invalid="ignore", divide="ignore"):
        within = (len(one) * one.var(axis=0) + len(two) * two.var(axis=0)) / (len(first) - 2)
        error = np.sqrt(within * (1 / len(one) + 1 / len(two)))
        apart = one.mean(axis=0) - two.mean(axis=0)
        sure, far = np.abs(apart) / error, apart / spread
    for channel in np.flatnonzero((np.abs(far) >= FAR) & (sure >= SURE) & np.isfinite(far)):
        means = float(one[:, channel].mean()), float(two[:, channel].mean())
        yield Elsewhere(int(channel), float(sure[channel]), *means, float(far[channel]))


def _finding(measured: Measured, name: str, episode: int, shifts: list[Elsewhere]) -> Finding:
    channels = measured.demos.spec.observation
    most, *others = sorted(shifts, key=lambda shift: -abs(shift.deviations))
    channel = channels[most.channel]
    unit = f" {channel.unit}" if channel.unit else ""
    also = ", ".join(f"{channels[each.channel].name} ({abs(each.deviations):.1f})" for each in others[:NAMED])
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    return Finding(
        f"observation.{channel.name}",
        f"observation.{channel.name} begins elsewhere {name}: at {most.here:.3g}{unit} on average, at "
        f"{most.elsewhere:.3g}{unit} in the other episodes, {abs(most.deviations):.1f} standard deviations apart"
        + (f"; so do {also}{more}" if others else ""),
        episode,
        severity="advice",
    )
