"""Errors on held-out episodes: the references are what they say, and the numbers agree with plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from vqbet.contract import Channel, GateError, Spec
from vqbet.evaluation import offline
from vqbet.evaluation.offline import Moments, References

RANDOM = np.random.default_rng(3)


def spec(kind: str = "absolute") -> Spec:
    observed = tuple(Channel(name, "rad", -9, 9) for name in ("elbow", "wrist", "force"))
    acted = tuple(Channel(name, "rad", -9, 9) for name in ("wrist", "elbow"))
    return Spec("arm", observed, acted, 10.0, action_kind=kind, frame="")  # type: ignore[arg-type]


def moments(count: int = 200, *, T: int = 2, H: int = 3, kind: str = "absolute") -> Moments:
    """Return steps whose actions are a linear map of the newest observation."""
    observation = RANDOM.standard_normal((count, T, 3)).astype(np.float32)
    weight = np.array([[0.5, 2.0, 0.0], [1.0, 0.0, -1.0]], np.float32)
    chunk = np.stack([observation[:, -1] @ weight.T + step for step in range(H)], axis=1).astype(np.float32)
    episode, step = np.arange(count) // 20, np.arange(count) % 20 + 1
    return Moments(spec(kind), observation, chunk[:, 0] - 0.5, chunk, episode, step)


def test_a_linear_map_is_found_and_the_others_are_what_they_say() -> None:
    train, held = moments(400), moments(50)
    found = References(train).predict(held)
    assert list(found) == ["previous", "measured", "linear", "nearest", "mean"]
    assert np.abs(found["linear"] - held.chunk).max() < 0.02
    assert np.allclose(found["previous"], np.repeat(held.previous[:, None], 3, axis=1))
    assert np.allclose(found["measured"][:, 2], held.observation[:, -1, [1, 0]])
    assert np.allclose(found["mean"], train.chunk[:, 0].mean(axis=0), atol=1e-6)
    scale = train.observation.reshape(400, -1).std(axis=0)
    for row in range(50):
        apart = (train.observation.reshape(400, -1) - held.observation[row].ravel()) / scale
        assert np.array_equal(found["nearest"][row], train.chunk[np.square(apart).sum(axis=1).argmin()])


def test_commands_that_are_changes_are_not_measured() -> None:
    assert offline.measured(spec()) == [1, 0]
    assert offline.measured(spec("relative")) == [-1, -1]
    assert "measured" not in References(moments(kind="relative")).predict(moments(5))


def test_a_table_has_physical_errors_and_errors_over_the_deviation() -> None:
    held = moments(60)
    deviation = np.array([0.5, np.nan])
    rows = offline.table({"policy": held.chunk + np.float32(0.25), "mean": held.chunk + np.float32(1)}, held, deviation)
    assert rows["policy"]["next"] == pytest.approx([0.25, 0.25], abs=1e-5)
    assert rows["policy"]["next_over"] == [pytest.approx(0.5, abs=1e-5), None]
    assert rows["policy"]["last_mean"] == pytest.approx(0.5, abs=1e-5)
    assert rows["mean"]["horizon"] == pytest.approx([2.0] * 3, abs=1e-5)
    assert offline.beaten(rows, "policy") == {"next": [], "last": []}
    assert offline.beaten(rows, "mean") == {"next": [], "last": []}


def test_what_has_a_smaller_error_beats_the_policy_on_the_channels_that_it_predicts() -> None:
    held, deviation = moments(60), np.array([1.0, 1.0])
    half = held.chunk.astype(np.float64) + 0.1
    half[:, :, 1] = np.nan
    rows = offline.table({"policy": held.chunk + np.float32(0.2), "measured": half}, held, deviation)
    assert offline.beaten(rows, "policy") == {"next": ["measured"], "last": ["measured"]}


def test_scores_of_episodes_are_their_mean_errors() -> None:
    held = moments(60)
    error = np.abs(RANDOM.standard_normal(held.chunk.shape)) / 4
    scored = offline.by_episode(error, held.episode, 3)
    assert [each.steps for each in scored] == [20, 20, 20]
    assert scored[1].error == pytest.approx(error[20:40].mean(), abs=1e-6)
    assert scored[1].score == pytest.approx(1 - error[20:40].mean(), abs=1e-6)
    assert scored[2].error_last == pytest.approx(error[40:, -1].mean(), abs=1e-6)
    assert offline.by_episode(error + 3, held.episode, 3)[0].score == 0.0
    with pytest.raises(GateError, match="held-out episode 3 of 4 has no action followed by a whole chunk"):
        offline.by_episode(error, held.episode, 4)


def test_no_training_step_is_a_sentence() -> None:
    with pytest.raises(GateError, match="no training episode has 4 steps"):
        References(moments(0))


def test_codes_that_are_as_likely_as_they_say_are_calibrated() -> None:
    count, probability = 40_000, np.array([0.7, 0.2, 0.1])
    chosen = RANDOM.choice(3, size=(count, 1), p=probability)
    found = offline.codes(np.broadcast_to(probability, (count, 1, 3)), chosen)
    assert found["accuracy"][0] == pytest.approx(0.7, abs=0.01)
    assert found["calibration_error"][0] < 0.01
    assert found["entropy_bits"][0] == pytest.approx(1.1568, abs=1e-3)
    assert found["surprise_bits"][0] == pytest.approx(1.1568, abs=0.02)
    (row,) = found["reliability"][0]
    assert row["chunks"] == count


def test_codes_that_are_surer_than_right_are_not_calibrated() -> None:
    chosen = RANDOM.integers(0, 2, size=(1000, 1))
    sure = np.broadcast_to(np.array([0.95, 0.05]), (1000, 1, 2))
    assert offline.codes(sure, chosen)["calibration_error"][0] == pytest.approx(0.45, abs=0.05)
