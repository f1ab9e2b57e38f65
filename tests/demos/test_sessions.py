"""Validation says that sessions differ: by label, or from an episode on, as the left arm of the G1 humanoid does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.g1 import g1
from tests.support.synthetic import synthetic
from vqbet.contract import Demonstrations
from vqbet.demos.validation import tables
from vqbet.demos.validation.findings import Finding
from vqbet.demos.validation.sessions import sessions


def found(demos: Demonstrations) -> list[Finding]:
    return list(sessions(SimpleNamespace(demos=demos, channels=tables.channels(demos))))  # type: ignore[arg-type]


def moved(demos: Demonstrations, episodes: np.ndarray, by: float) -> Demonstrations:
    """Return demonstrations whose last observed channel rests elsewhere in these episodes."""
    observation = demos.observation.copy()
    observation[np.repeat(episodes, demos.lengths), -1] += by
    return replace(demos, observation=observation)


def unlabelled(demos: Demonstrations) -> Demonstrations:
    return replace(demos, columns={**demos.columns, "session": np.full(len(demos.lengths), "")})


@pytest.mark.parametrize("seed", range(5))
def test_equal_sessions_are_nothing_to_tell(seed: int) -> None:
    demos = synthetic(60, seed=seed)
    assert found(demos) == []
    assert found(unlabelled(demos)) == []


def test_a_session_that_begins_elsewhere_is_named() -> None:
    demos = synthetic(60)
    (finding,) = found(moved(demos, demos.columns["session"] == "session-2", 3.0))
    assert finding.severity == "advice"
    assert (finding.field, finding.episode) == ("observation.feature_3", 20)
    assert "begins elsewhere in session 'session-2'" in finding.message


def test_without_labels_the_first_episode_elsewhere_is_named() -> None:
    demos = unlabelled(synthetic(60))
    (finding,) = found(moved(demos, np.arange(60) >= 41, 3.0))
    assert (finding.field, finding.episode) == ("observation.feature_3", 41)
    assert "begins elsewhere from episode 41 on" in finding.message


def test_too_few_episodes_are_nothing_to_tell() -> None:
    demos = unlabelled(synthetic(8))
    assert found(moved(demos, np.arange(8) >= 4, 3.0)) == []


def test_the_left_arm_of_the_humanoid_rests_elsewhere_from_episode_79_on(real_demos: Callable[[str], Path]) -> None:
    told = {finding.episode: finding.message for finding in found(g1(real_demos("g1_bottle")))}
    assert "observation.kLeftWristPitch begins elsewhere from episode 79 on" in told[79]
    assert "1.9 standard deviations apart" in told[79]
