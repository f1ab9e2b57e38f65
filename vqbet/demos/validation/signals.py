"""Correlation of commands with the motion that follows them, per episode and action channel, over lags.

A command is the action itself where actions are relative, and its change since the previous step where they are
absolute. Motion is the change of an observed channel until the next step. Lag k compares the command of step t with the
motion of step t + k: 0 where a robot obeys within the control step, more where it follows later, below 0 where it moved
before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from vqbet.contract import Demonstrations
from vqbet.demos.validation import tables

SEARCHED_S = 1.0  # largest lag searched, both ways
LEAST_LAGS = 6  # least number of steps searched, both ways
MOST_LAGS = 40  # largest number of steps searched, both ways
AT_STOP = 0.002  # of a channel's travel in the set: so close to an end of it the channel is at a stop
TINY = 1e-24  # least sum of squares to divide by


@dataclass(frozen=True, slots=True)
class Signals:
    """Commands (N, A) and motions (N, D) of all steps, minus their mean over the episode; 0 where there is none."""

    command: Float[np.ndarray, "N A"]
    command_known: Bool[np.ndarray, "N A"]
    motion: Float[np.ndarray, "N D"]
    motion_known: Bool[np.ndarray, "N D"]
    starts: Int[np.ndarray, " E"]
    episode: Int[np.ndarray, " N"]
    relative: bool

    @classmethod
    def of(cls, demos: Demonstrations) -> Signals:
        first, starts = tables.is_first_step(demos), demos.episode_starts
        command = demos.action.astype(np.float64)
        if demos.spec.action_kind == "absolute":
            command = np.diff(command, axis=0, prepend=command[:1])
            command[first] = np.nan
        motion = np.roll(tables.changes(demos), -1, axis=0)  # of step t: until step t + 1
        motion[demos.episode_ends - 1] = np.nan
        motion[_stopped(demos.observation, motion)] = np.nan
        episode = tables.episode_of_step(demos)
        relative = demos.spec.action_kind == "relative"
        return cls(*_centred(command, starts, episode), *_centred(motion, starts, episode), starts, episode, relative)

    def centred(self, values: Float[np.ndarray, "N C"]) -> tuple[Float[np.ndarray, "N C"], Bool[np.ndarray, "N C"]]:
        """Return values minus their mean over the episode, 0 where they are not finite, and where they are finite."""
        return _centred(values, self.starts, self.episode)

    def curves(self, pairs: Int[np.ndarray, "P 2"], lags: Int[np.ndarray, " L"]) -> Float[np.ndarray, "E P L"]:
        """Return each episode's correlation of each pair (action, observed channel) at each lag; 0 where undefined."""
        found = np.zeros((len(self.starts), len(pairs), len(lags)))
        chosen = self._chosen(pairs)
        for place, lag in enumerate(lags.tolist()):
            sums = chosen.sums(lag)
            found[:, :, place] = sums.product / np.sqrt(np.maximum(sums.command * sums.motion, TINY))
        return found

    def all_pairs(
        self, episode: int, actions: Int[np.ndarray, " P"], lags: Int[np.ndarray, " L"]
    ) -> Float[np.ndarray, "P D L"]:
        """Return one episode's correlation of these actions with all observed channels, tapered towards its ends."""
        steps = slice(self.starts[episode], (*self.starts, len(self.episode))[episode + 1])
        command, motion = self.command[steps][:, actions], self.motion[steps]
        size = np.sqrt(np.maximum((command**2).sum(axis=0)[:, None] * (motion**2).sum(axis=0), TINY))
        length = len(command)
        found = np.zeros((len(actions), motion.shape[1], len(lags)))
        for place, lag in enumerate(lags.tolist()):
            here, there = slice(max(0, -lag), max(0, length - max(0, lag))), slice(max(0, lag), length - max(0, -lag))
            if abs(lag) < length:
                found[:, :, place] = command[here].T @ motion[there] / size
        return found

    def across(self, action: int, observed: Int[np.ndarray, " P"], lag: int) -> Float[np.ndarray, "E P"]:
        """Return each episode's correlation of an action with observed channels, tapered towards the episode's ends."""
        n = len(self.episode)
        moved = np.zeros((n, len(observed)))
        here, there = slice(max(0, -lag), max(0, n - max(0, lag))), slice(max(0, lag), max(0, n - max(0, -lag)))
        if abs(lag) < n:
            same = self.episode[here] == self.episode[there]
            moved[here] = np.where(same[:, None], self.motion[there][:, observed], 0)
        command = self.command[:, action, None]
        product, squares = (np.add.reduceat(each, self.starts, axis=0) for each in (command * moved, moved**2))
        return product / np.sqrt(np.maximum(squares * np.add.reduceat(command**2, self.starts, axis=0), TINY))

    def sums(self, pairs: Int[np.ndarray, "P 2"], lag: int) -> Sums:
        """Return sums over the steps of each episode, at this lag, for each pair (action, observed channel)."""
        return self._chosen(pairs).sums(lag)

    def _chosen(self, pairs: Int[np.ndarray, "P 2"]) -> _Chosen:
        commands, motions = pairs.T
        return _Chosen(
            command=self.command[:, commands],
            command_known=self.command_known[:, commands].astype(np.float64),
            motion=self.motion[:, motions],
            motion_known=self.motion_known[:, motions].astype(np.float64),
            starts=self.starts,
            episode=self.episode,
        )


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Signals of P pairs; masks of known values are 1 and 0."""

    command: Float[np.ndarray, "N P"]
    command_known: Float[np.ndarray, "N P"]
    motion: Float[np.ndarray, "N P"]
    motion_known: Float[np.ndarray, "N P"]
    starts: Int[np.ndarray, " E"]
    episode: Int[np.ndarray, " N"]

    def sums(self, lag: int) -> Sums:
        n = len(self.episode)
        here, there = slice(max(0, -lag), max(0, n - max(0, lag))), slice(max(0, lag), max(0, n - max(0, -lag)))
        padded = np.zeros((4, *self.command.shape))
        if abs(lag) < n:
            same = (self.episode[here] == self.episode[there])[:, None]
            command, motion = self.command[here] * same, self.motion[there]
            known, moved = self.command_known[here] * same, self.motion_known[there]
            padded[:, here] = command * motion, command**2 * moved, motion**2 * known, known * moved
        product, commands, motions, steps = np.add.reduceat(padded, self.starts, axis=1)
        return Sums(product, commands, motions, steps.astype(np.int64))


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over the steps of each of E episodes, for P pairs: command times motion, squared commands, squared motions.

    steps: how many had both."""

    product: Float[np.ndarray, "E P"]
    command: Float[np.ndarray, "E P"]
    motion: Float[np.ndarray, "E P"]
    steps: Int[np.ndarray, "E P"]


def searched(control_hz: float) -> Int[np.ndarray, " L"]:
    """Return the lags to search, in control steps."""
    most = int(np.clip(round(SEARCHED_S * control_hz), LEAST_LAGS, MOST_LAGS))
    return np.arange(-most, most + 1)


def _stopped(seen: Float[np.ndarray, "N D"], motion: Float[np.ndarray, "N D"]) -> Bool[np.ndarray, "N D"]:
    """Return where a channel stays at an end of its travel: a stop holds it, whatever is commanded."""
    low, high = np.fmin.reduce(seen, axis=0), np.fmax.reduce(seen, axis=0)
    margin = AT_STOP * (high - low)
    with np.errstate(invalid="ignore"):
        return ((seen <= low + margin) | (seen >= high - margin)) & (np.abs(motion) <= margin)


def _centred(values: np.ndarray, starts: np.ndarray, episode: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(values)
    values = np.where(known, values, 0)
    mean = np.add.reduceat(values, starts, axis=0) / np.maximum(np.add.reduceat(known.astype(float), starts, axis=0), 1)
    return np.where(known, values - mean[episode], 0), known
