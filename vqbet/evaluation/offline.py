"""Errors of predicted actions on held-out episodes, in physical units, beside those of predictions that need no policy.

For a task without a world nothing else can be measured before a robot moves. A small error is not success: at slow
joints the action before, again, has a smaller one than any policy. But a policy that is worse than the mean is no good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import GateError, Spec

REFERENCES = ("previous", "measured", "linear", "nearest", "mean")  # predictions without a policy
RIDGE = 1e-3  # of the number of training steps, in standardised features: regularises channels that repeat others
ROWS = 1024  # steps compared with all training steps at a time
BINS = 10  # of a reliability diagram
DIGITS = 6  # of every number in a file: the last bits of a sum differ between processors


@dataclass(frozen=True, slots=True)
class Moments:
    """M steps at which actions are predicted: each has an action before it, and H actions from it on.

    episode: number of the step's episode within the set; step: number of the step within its episode. Actions and
    observations are in physical units, float32.
    """

    spec: Spec
    observation: Float[np.ndarray, "M T D"]
    previous: Float[np.ndarray, "M A"]
    chunk: Float[np.ndarray, "M H A"]
    episode: Int[np.ndarray, " M"]
    step: Int[np.ndarray, " M"]


class References:
    """Predictions that need no policy, by name (REFERENCES), fitted on training episodes.

    previous: the action before, again. measured: the measured value of a channel, where actions are absolute and the
    channel is observed by the same name. linear: ridge regression of the chunk on all T observations. nearest: the
    chunk of the training step with the most similar observations, each channel over its deviation. mean: of all
    actions. deviation (A,): of the training actions; NaN for a channel that never changes.
    """

    def __init__(self, train: Moments) -> None:
        """Raises GateError where there is no training step to fit to."""
        if not len(train.chunk):
            raise GateError(
                f"task {train.spec.task!r}: no training episode has {train.chunk.shape[1] + 1} steps, an action before "
                "a whole chunk, so nothing can be compared on held-out ones; use a shorter tokenizer.chunk"
            )
        spread = train.chunk[:, 0].astype(np.float64).std(axis=0)
        self.deviation = np.where(spread > 0, spread, np.nan)
        self._mean = train.chunk[:, 0].mean(axis=0, dtype=np.float64)
        seen = train.observation.reshape(len(train.chunk), -1).astype(np.float64)
        self._centre, scale = seen.mean(axis=0), seen.std(axis=0)
        self._scale = np.where(scale > 0, scale, np.inf)  # a channel that never changed says nothing
        self._seen, self._chunk = self._standardised(train.observation), train.chunk
        targets = train.chunk.reshape(len(train.chunk), -1).astype(np.float64)
        self._offset = targets.mean(axis=0)
        square = self._seen.T @ self._seen + RIDGE * len(seen) * np.eye(seen.shape[1])
        self._weight = np.linalg.solve(square, self._seen.T @ (targets - self._offset))
        self._measured = measured(train.spec)

    def predict(self, moments: Moments) -> dict[str, Float[np.ndarray, "M H A"]]:
        """Return the predictions for all channels and steps; NaN for a channel that is not measured.

        "measured" is left out where no channel is.
        """
        seen, shape = self._standardised(moments.observation), moments.chunk.shape
        found = {"previous": np.broadcast_to(moments.previous[:, None], shape)}
        if max(self._measured) >= 0:
            now = moments.observation[:, -1, self._measured].astype(np.float64)
            now[:, np.array(self._measured) < 0] = np.nan
            found["measured"] = np.broadcast_to(now[:, None], shape)
        found["linear"] = (seen @ self._weight + self._offset).reshape(shape)
        found["nearest"] = self._chunk[self._nearest(seen)]
        found["mean"] = np.broadcast_to(self._mean, shape)
        return found

    def _standardised(self, observation: Float[np.ndarray, "M T D"]) -> Float[np.ndarray, "M TD"]:
        standardised: np.ndarray = (observation.reshape(len(observation), -1) - self._centre) / self._scale
        return standardised

    def _nearest(self, seen: Float[np.ndarray, "M TD"]) -> Int[np.ndarray, " M"]:
        squares = np.square(self._seen).sum(axis=1)
        rows = [seen[first : first + ROWS] for first in range(0, len(seen), ROWS)]
        return np.concatenate([(squares - 2 * row @ self._seen.T).argmin(axis=1) for row in rows])


def measured(spec: Spec) -> list[int]:
    """Return for each action channel the observed channel of its name, -1 where there is none.

    A command that is a change is no measured value, so that all are -1 where actions are relative.
    """
    places = {channel.name: place for place, channel in enumerate(spec.observation)}
    return [places.get(channel.name, -1) if spec.action_kind == "absolute" else -1 for channel in spec.action]


def over_deviation(
    predicted: Float[np.ndarray, "M H A"], moments: Moments, deviation: Float[np.ndarray, " A"]
) -> Float[np.ndarray, "M H A"]:
    """Return absolute errors over each channel's deviation; NaN for constant channels and where nothing is predicted.

    Raises GateError for a prediction of another shape.
    """
    if predicted.shape != moments.chunk.shape:
        raise GateError(f"expected predictions of shape {moments.chunk.shape}, got {predicted.shape}")
    found: np.ndarray = np.abs(predicted.astype(np.float64) - moments.chunk) / deviation
    return found


@dataclass(frozen=True, slots=True)
class Scored:
    """Mean errors of one episode over all channels, over their deviations: of whole chunks, next and last action.

    score: 1 - error, and 0 for an error of a deviation or more.
    """

    steps: int
    score: float
    error: float
    error_next: float
    error_last: float


def by_episode(error: Float[np.ndarray, "M H A"], episode: Int[np.ndarray, " M"], episodes: int) -> list[Scored]:
    """Return the errors of each episode. Raises GateError, naming it, where one has no step that is evaluated."""
    found = []
    for number in range(episodes):
        mine = error[episode == number]
        if not len(mine):
            raise GateError(
                f"held-out episode {number} of {episodes} has no action followed by a whole chunk, so nothing can be "
                "predicted in it; drop it, or use a shorter tokenizer.chunk"
            )
        whole = _mean(mine)
        score = _rounded(max(0.0, 1.0 - whole))
        found.append(Scored(len(mine), score, whole, _mean(mine[:, 0]), _mean(mine[:, -1])))
    return found


def table(
    predicted: Mapping[str, Float[np.ndarray, "M H A"]], moments: Moments, deviation: Float[np.ndarray, " A"]
) -> dict[str, dict[str, Any]]:
    """Return errors by prediction; JSON-clean, null where nothing is predicted or a channel is constant.

    next, last (A): mean absolute error in physical units of the next action and the one H - 1 steps on. next_over,
    last_over (A): over the channel's deviation. next_mean, last_mean: of these, over all channels. horizon (H): over
    deviation, mean of the channels.
    """
    found = {}
    for name, values in predicted.items():
        over = over_deviation(values, moments, deviation)
        physical = np.abs(values.astype(np.float64) - moments.chunk)
        found[name] = {
            **{when: _list(physical[:, at].mean(axis=0)) for when, at in WHEN.items()},
            **{f"{when}_over": _list(over[:, at].mean(axis=0)) for when, at in WHEN.items()},
            **{f"{when}_mean": _mean(over[:, at]) for when, at in WHEN.items()},
            "horizon": [_mean(over[:, step]) for step in range(over.shape[1])],
        }
    return found


WHEN = {"next": 0, "last": -1}  # place in the chunk


def beaten(rows: Mapping[str, Mapping[str, Any]], policy: str) -> dict[str, list[str]]:
    """Return, for the next and the last action, the references with a smaller error than the policy's row.

    A reference without predictions for some channels is compared on the others.
    """
    found: dict[str, list[str]] = {}
    for when in WHEN:
        mine = _array(rows[policy][f"{when}_over"])
        found[when] = []
        for name in REFERENCES:
            if name in rows:
                theirs = _array(rows[name][f"{when}_over"])
                both = np.isfinite(mine) & np.isfinite(theirs)
                if both.any() and theirs[both].mean() < mine[both].mean():
                    found[when].append(name)
    return found


def codes(probability: Float[np.ndarray, "M Q K"], chosen: Int[np.ndarray, "M Q"]) -> dict[str, Any]:
    """Return how well a policy predicts the codes of held-out chunks, by layer; JSON-clean.

    accuracy: share of chunks whose code is the likeliest. entropy_bits: of the prediction. surprise_bits: -log2 of the
    probability of the code that was right. calibration_error: mean distance, over chunks, between the probability of
    the likeliest code and how often it is right at such a probability (expected calibration error, Naeini et al. 2015).
    reliability: per layer and bin of probability its mean, the share that was right, and the number of chunks.
    """
    likeliest, sure = probability.argmax(axis=2), probability.max(axis=2).astype(np.float64)
    right = likeliest == chosen
    true = np.take_along_axis(probability, chosen[:, :, None], axis=2)[:, :, 0].astype(np.float64)
    positive = np.maximum(probability.astype(np.float64), np.finfo(np.float64).tiny)
    reliability = [_reliability(sure[:, layer], right[:, layer]) for layer in range(chosen.shape[1])]
    return {
        "chunks": len(chosen),
        "accuracy": _list(right.mean(axis=0)),
        "accuracy_of_all": _rounded(float(right.all(axis=1).mean())),
        "entropy_bits": _list(-(positive * np.log2(positive)).sum(axis=2).mean(axis=0)),
        "surprise_bits": _list(-np.log2(np.maximum(true, np.finfo(np.float32).tiny)).mean(axis=0)),
        "calibration_error": [
            _rounded(sum(row["chunks"] * abs(row["predicted"] - row["right"]) for row in rows) / len(chosen))
            for rows in reliability
        ],
        "reliability": reliability,
    }


def _reliability(sure: Float[np.ndarray, " M"], right: np.ndarray) -> list[dict[str, float]]:
    place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    return [
        {
            "predicted": _rounded(float(sure[place == number].mean())),
            "right": _rounded(float(right[place == number].mean())),
            "chunks": int((place == number).sum()),
        }
        for number in np.unique(place)
    ]


def _array(values: Sequence[float | None]) -> Float[np.ndarray, " A"]:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _list(values: Float[np.ndarray, " N"]) -> list[float | None]:
    return [_rounded(value) if np.isfinite(value) else None for value in values.tolist()]


def _mean(values: Float[np.ndarray, "..."]) -> float:
    """Return the mean of the values that are numbers."""
    return _rounded(float(values[np.isfinite(values)].mean()))


def _rounded(value: float) -> float:
    return round(value, DIGITS) + 0.0  # no minus zero
