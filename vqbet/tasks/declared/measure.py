"""Success and score of an episode of any Gymnasium environment, told from its rewards and infos by a short rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from vqbet.contract import WorldError

NUMBER = r"(?P<number>[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
SUCCESS = re.compile(rf"info\.(?P<key>[\w.]+)|(?P<what>return|reward) *>= *{NUMBER}|(?P<end>terminated)")
SCORE = re.compile(rf"(?P<success>success)|info\.(?P<key>[\w.]+)|return */ *{NUMBER}")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that was understood. key: of the info; "" where the rule asks no info."""

    text: str
    key: str = ""
    what: str = ""
    number: float = 0.0


def success(text: str) -> Rule:
    """Return the rule of success: `info.<key>`, `return >= x`, `reward >= x` or `terminated`. Raises ValueError."""
    found = SUCCESS.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"expected info.<key>, return >= x, reward >= x or terminated, got {text!r}")
    return Rule(text, found["key"] or "", found["what"] or found["end"] or "info", float(found["number"] or 0))


def score(text: str) -> Rule:
    """Return the rule of the score: `success`, `info.<key>` or `return / x`, each cut to 0..1. Raises ValueError."""
    found = SCORE.fullmatch(text.strip())
    if found is None or (found["number"] and float(found["number"]) == 0):
        raise ValueError(f"expected success, info.<key> or return / x, got {text!r}")
    what = "success" if found["success"] else "info" if found["key"] else "return"
    return Rule(text, found["key"] or "", what, float(found["number"] or 0))


class EpisodeMeasure:
    """Success and score of E episodes, step by step. Success once is success; a score of an info is its largest."""

    def __init__(self, success_rule: Rule, score_rule: Rule, episodes: int) -> None:
        self._success, self._score = success_rule, score_rule
        self.returns = np.zeros(episodes)
        self._best = np.zeros(episodes)
        self._succeeded = np.zeros(episodes, bool)

    def step(
        self, rows: np.ndarray, reward: Float[np.ndarray, " B"], info: Mapping[str, Any], ended: Bool[np.ndarray, " B"]
    ) -> None:
        """Take the rewards of one step of the episodes `rows`, the vector environment's infos, and what terminated.

        Raises WorldError where a key is not in the info.
        """
        self.returns[rows] += reward
        rule = self._success
        if rule.what == "info":
            self._succeeded[rows] |= _values(info, rule.key, rows) > 0.5
        elif rule.what == "terminated":
            self._succeeded[rows] |= ended
        else:
            reached = self.returns[rows] if rule.what == "return" else reward
            self._succeeded[rows] |= reached >= rule.number
        if self._score.what == "info":
            self._best[rows] = np.maximum(self._best[rows], _values(info, self._score.key, rows))

    @property
    def success(self) -> Bool[np.ndarray, " E"]:
        return self._succeeded.copy()

    @property
    def score(self) -> Float[np.ndarray, " E"]:
        """Return the scores, 0..1."""
        if self._score.what == "success":
            return self._succeeded.astype(np.float64)
        found = self._best if self._score.what == "info" else self.returns / self._score.number
        return np.clip(found, 0.0, 1.0)


def _values(info: Mapping[str, Any], key: str, rows: np.ndarray) -> Float[np.ndarray, " B"]:
    """Return the numbers of a key of the infos, whose parts are joined by dots."""
    found: Any = info
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            there = ", ".join(sorted(name for name in info if not name.startswith("_"))) or "nothing"
            raise WorldError(f"info.{key}: the environment's info does not have it; there are: {there}")
        found = found[part]
    try:
        return np.array([float(value) for value in np.asarray(found)[rows]])
    except (TypeError, ValueError) as error:
        raise WorldError(f"info.{key}: expected a number for each episode, got {found!r}") from error
