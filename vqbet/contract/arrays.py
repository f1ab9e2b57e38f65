"""Checks of plain arrays that become demonstrations, and the channels that such arrays show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from vqbet.contract.errors import ValidationError
from vqbet.contract.spec import Channel

MARGIN = 0.1  # of a recorded range, added on either side for default limits


def matrix(name: str, value: ArrayLike) -> Float[np.ndarray, "N C"]:
    """Return an array as float32. Raises ValidationError unless it holds real numbers of shape (N, C)."""
    array = np.asarray(value)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise ValidationError(
            f"{name}: expected real numbers of shape (steps, channels), all episodes one after the other, got shape "
            f"{array.shape} of {array.dtype}"
        )
    with np.errstate(over="ignore"):
        return np.array(array, np.float32)


def ends(value: ArrayLike, steps: Mapping[str, int]) -> Int[np.ndarray, " E"]:
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


def refuse_infinite(name: str, array: Float[np.ndarray, "N C"], ends: Int[np.ndarray, " E"]) -> None:
    if np.isfinite(array).all():
        return
    step, channel = np.argwhere(~np.isfinite(array))[0]
    episode = int(np.searchsorted(ends, step, side="right"))
    raise ValidationError(
        f"{name}: expected finite float32 numbers, got {array[step, channel]} at step {step}, which is of episode "
        f"{episode}, in channel {channel}; mend that episode or leave it out"
    )


def refuse_beyond(name: str, array: Float[np.ndarray, "N C"], channels: Sequence[Channel]) -> None:
    if len(channels) != array.shape[1]:
        raise ValidationError(f"{name}: expected the {len(channels)} channels of the spec, got {array.shape[1]}")
    for channel, low, high in zip(channels, array.min(axis=0), array.max(axis=0), strict=True):
        if low < np.float32(channel.low) or high > np.float32(channel.high):
            raise ValidationError(
                f"{name} {channel.name!r}: expected {channel.low:g} to {channel.high:g} {channel.unit}, the limits of "
                f"the spec, got {low:g} to {high:g}; check units and order of channels, or mend the limits"
            )


def channels(name: str, array: Float[np.ndarray, "N C"]) -> tuple[Channel, ...]:
    """Return channels without units, whose limits are the recorded range plus a margin."""
    return tuple(Channel(f"{name}_{index}", "", *both) for index, both in enumerate(widened(array)))


def widened(array: Float[np.ndarray, "N C"]) -> list[tuple[float, float]]:
    """Return limits of each column: its range and MARGIN of it on either side; of a constant one, 1 or MARGIN of it."""
    low, high = array.min(axis=0).astype(np.float64), array.max(axis=0).astype(np.float64)
    margin = np.where(high > low, MARGIN * (high - low), np.maximum(MARGIN * np.abs(low), 1.0))
    return list(zip((low - margin).tolist(), (high + margin).tolist(), strict=True))


def rate(value: float | None) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise ValidationError(f"control_hz: expected the control steps of one second, such as 10, got {value!r}")
    return float(value)
