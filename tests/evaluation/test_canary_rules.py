"""Rules of a canary: limits over its episodes, and when one is exceeded for certain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vqbet.evaluation.canary_rules import CanaryEpisode, CanaryRules, exceeded, summary

RULES = CanaryRules(10, max_hold_share=0.05, max_stop_share=0.1, max_intervention_share=0.2, latency_ms=100.0)
GOOD = CanaryEpisode(100, 0, stopped=False, driven=False, latency_ms=20.0)
SLOW = replace(GOOD, latency_ms=150.0)


def test_an_episode_is_counted_from_its_arrays() -> None:
    verdict = np.array([b"pass", b"hold", b"pass", b"stop"], "|S24")
    latency_ms = np.array([np.nan, 30.0, np.nan, 12.0])
    found = CanaryEpisode.of(verdict, np.array([False, True, False, False]), latency_ms)
    assert found == CanaryEpisode(4, 2, stopped=True, driven=True, latency_ms=30.0)
    assert found.sentence() == "2 of 4 steps refused, stopped by the guard, a person took over, answers in 30 ms"
    without = CanaryEpisode.of(verdict[:1], np.array([False]), np.array([np.nan]))
    assert without == CanaryEpisode(1, 0, stopped=False, driven=False, latency_ms=None)
    assert "no answer times" in without.sentence()


def test_one_slow_answer_of_a_hundred_is_no_slow_episode() -> None:
    latency_ms = np.full(100, 10.0)
    latency_ms[40] = 5000
    verdict, driven = np.full(100, b"pass", "|S24"), np.zeros(100, bool)
    assert CanaryEpisode.of(verdict, driven, latency_ms).latency_ms == 10
    latency_ms[41] = 4000
    assert CanaryEpisode.of(verdict, driven, latency_ms).latency_ms == 4000


@pytest.mark.parametrize(
    ("bad", "most", "name"),
    [
        (replace(GOOD, refused=50), 1, "max_hold_share"),
        (replace(GOOD, stopped=True), 1, "max_stop_share"),
        (replace(GOOD, driven=True), 2, "max_intervention_share"),
        (SLOW, 5, "latency_ms"),
    ],
)
def test_a_limit_may_be_reached_and_not_exceeded(bad: CanaryEpisode, most: int, name: str) -> None:
    assert exceeded(RULES, [bad] * most) == []
    assert exceeded(RULES, [bad] * most + [GOOD] * (10 - most)) == []
    (sentence,) = exceeded(RULES, [bad] * (most + 1))
    assert f"({name})" in sentence
    assert f"after {most + 1} of 10 episodes" in sentence


def test_no_limit_is_exceeded_for_a_while_only() -> None:
    """What is exceeded for certain stays so, and what is never exceeded is within its limits at the end."""
    random = np.random.default_rng(0)
    for _ in range(300):
        episodes = [
            CanaryEpisode(
                int(steps := random.integers(1, 50)),
                int(random.integers(0, steps + 1)) if random.random() < 0.1 else 0,
                stopped=bool(random.random() < 0.1),
                driven=bool(random.random() < 0.2),
                latency_ms=None if random.random() < 0.2 else float(random.uniform(0, 180)),
            )
            for _ in range(RULES.episodes)
        ]
        over = [bool(exceeded(RULES, episodes[: count + 1])) for count in range(len(episodes))]
        assert over == sorted(over)
        held = np.mean([each.refused / each.steps for each in episodes])
        stopped, driven = np.mean([each.stopped for each in episodes]), np.mean([each.driven for each in episodes])
        slow = np.mean([(each.latency_ms or 0) > 100 for each in episodes])
        assert over[-1] == (held > 0.05 or stopped > 0.1 or driven > 0.2 or slow > 0.5)


def test_the_summary_has_numbers_and_limits() -> None:
    said = summary(RULES, [GOOD, replace(SLOW, stopped=True), replace(GOOD, latency_ms=None)])
    assert said.startswith("3 episodes: 0 of the control steps refused (at most 0.05); stopped in 1 (at most 0.1 of")
    assert "answers in 85 ms in the middle episode (at most 100 ms)" in said
    assert said.endswith("1 episodes without answer times")
    assert "latency was not compared" in summary(RULES, [replace(GOOD, latency_ms=None)])


@pytest.mark.parametrize(
    "change", [{"episodes": 0}, {"episodes": 2.0}, {"latency_ms": "1"}, {"more": 1}, {"max_stop_share": -1}]
)
def test_other_rules_are_refused(change: dict[str, object]) -> None:
    assert CanaryRules.from_json(RULES.to_json()) == RULES
    with pytest.raises(ValueError, match="expected episodes, latency_ms"):
        CanaryRules.from_json(RULES.to_json() | change)
