"""Checks that every world makes before it steps: rows and actions must be valid."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from vqbet.contract import WorldError


def refuse(
    world: str,
    action: np.ndarray,
    rows: np.ndarray,
    *,
    channels: int,
    steps: Int[np.ndarray, " E"],
    ended: Bool[np.ndarray, " E"],
) -> None:
    """Raise WorldError unless `action` holds `channels` finite numbers for each of the running episodes `rows`.

    steps[e]: number of steps that episode e has made. ended[e]: whether it has ended.
    """
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer) or len(np.unique(rows)) != len(rows):
        raise WorldError(f"{world}: step: expected different whole numbers as rows, got {rows!r}")
    if len(rows) and not (rows.min() >= 0 and rows.max() < len(steps)):
        raise WorldError(f"{world}: step: rows {rows.tolist()} are not all among the {len(steps)} episodes")
    if action.shape != (len(rows), channels):
        raise WorldError(f"{world}: step: expected actions of shape ({len(rows)}, {channels}), got {told(action)}")
    bad = rows[~np.isfinite(action).all(axis=1)]
    if len(bad):
        raise WorldError(f"{world}: step: the action of episode {bad[0]} is not finite; a policy must not act so")
    over = rows[ended[rows]]
    if len(over):
        raise WorldError(f"{world}: step: episode {over[0]} ended after {steps[over[0]]} steps; reset first")


def told(array: np.ndarray) -> str:
    """Return a description of an array: its shape, and how many of its numbers are not finite."""
    odd = array.size - int(np.isfinite(array).sum())
    return f"shape {array.shape}" + (f" with {odd} numbers that are not finite" if odd else "")
