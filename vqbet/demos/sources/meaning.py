"""Rate, limits and kind of actions of demonstrations, told from their numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import arrays

DIGITS = 4  # of limits
LEAST_EXPLAINED = 0.1  # share of the next step's change below which a hypothesis explains nothing
LEAST_APART = 0.05  # difference of the shares below which neither hypothesis is better


@dataclass(frozen=True, slots=True)
class ActionMeaning:
    """Shares of the change to the next state that two hypotheses about actions explain, averaged over channels.

    absolute: the state moves towards the action. relative: the state moves by the action. pairs: the name of each
    action that was compared, and of the observed channel it was compared with.
    """

    absolute: float
    relative: float
    pairs: tuple[tuple[str, str], ...]

    @property
    def kind(self) -> str:
        """Return "absolute" or "relative"; "" where the data does not tell."""
        best = max(self.absolute, self.relative)
        if best < LEAST_EXPLAINED or abs(self.absolute - self.relative) < LEAST_APART:
            return ""
        return "absolute" if best == self.absolute else "relative"

    def sentence(self) -> str:
        return (
            f"absolute actions explain {self.absolute:.2f} of the change to the next state, relative ones "
            f"{self.relative:.2f}"
        )


def of_actions(
    observation: Float[np.ndarray, "N D"],
    action: Float[np.ndarray, "N A"],
    ends: Int[np.ndarray, " E"],
    names: tuple[Sequence[str], Sequence[str]],
) -> ActionMeaning:
    """Return how well two hypotheses about actions explain the next state. names: of observed channels and actions.

    An action is compared with the observed channel of its name; else, with equally many channels, with the one at its
    place; else with the channel that either hypothesis explains best. Channels that never change are left out.
    """
    observed, acted = ([str(name) for name in side] for side in names)
    inside = np.ones(len(observation), bool)
    inside[ends - 1] = False  # the last step of an episode has no next one
    here, there = observation[inside].astype(np.float64), observation[np.flatnonzero(inside) + 1].astype(np.float64)
    given, change = action[inside].astype(np.float64), there - here
    alive = np.flatnonzero(change.std(axis=0) > 1e-9) if len(change) else np.zeros(0, np.int64)
    found: list[tuple[float, float]] = []
    pairs: list[tuple[str, str]] = []
    for number, name in enumerate(acted):
        if name in observed:
            places = [observed.index(name)]
        elif len(observed) == len(acted):
            places = [number]
        else:
            places = alive.tolist()
        shares = {
            place: tuple(
                _explained(change[:, place], cause) for cause in (given[:, number] - here[:, place], given[:, number])
            )
            for place in places
            if place in alive
        }
        if shares:
            best = max(shares, key=lambda place: max(shares[place]))
            found.append((shares[best][0], shares[best][1]))
            pairs.append((name, observed[best]))
    absolute, relative = np.mean(found, axis=0).tolist() if found else (0.0, 0.0)
    return ActionMeaning(absolute, relative, tuple(pairs))


def _explained(change: Float[np.ndarray, " M"], cause: Float[np.ndarray, " M"]) -> float:
    """Return the share of the variance of `change` that a positive multiple of `cause` explains, with an offset."""
    spread = float(cause.std())
    if spread < 1e-12:
        return 0.0
    correlation = float(np.mean((change - change.mean()) * (cause - cause.mean()))) / (spread * float(change.std()))
    return correlation**2 if correlation > 0 else 0.0


def limits(values: Float[np.ndarray, "N C"]) -> list[tuple[float, float]]:
    """Return the limits of `contract.arrays.widened`, rounded outwards to DIGITS."""
    return [_outwards(low, high) for low, high in arrays.widened(values)]


def _outwards(low: float, high: float) -> tuple[float, float]:
    step = 10.0 ** (np.floor(np.log10(high - low)) - DIGITS + 1)
    return float(f"{np.floor(low / step) * step:.10g}"), float(f"{np.ceil(high / step) * step:.10g}")


def rate_hz(times: Sequence[Float[np.ndarray, " N"]]) -> float | None:
    """Return the steps of one second, from the median of all differences of recorded times; None without any."""
    steps = np.concatenate([np.diff(time_s) for time_s in times]) if times else np.zeros(0)
    if not len(steps) or not np.median(steps) > 0:
        return None
    return float(f"{1.0 / np.median(steps):.5g}")
