"""How far a channel moved: planted shifts, scales and shapes, channels that stand still, and no NaN ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.drifting import D, compared, moved, process
from tests.support.examples import up_to
from vqbet.contract import Channel
from vqbet.drift.chance import ALPHA
from vqbet.drift.shift import STILL, shifts

OLD = process(2, 160)
NEW = process(3, 160)


@pytest.mark.parametrize("channel", range(5))
def test_half_a_deviation_in_every_new_episode_is_found_and_is_the_largest(channel: int) -> None:
    scale = np.concatenate([OLD.observation, OLD.action], axis=1)[:, channel].std()
    report = compared(OLD, moved(NEW, channel, by=0.5 * scale))
    names = [each.name for each in report.shifts]
    top = report.ranked()[0]
    assert top.name == names[channel]
    assert report.p[top.name] <= ALPHA
    plain = shifts(OLD, NEW)[channel]
    assert top.mean_shift == pytest.approx(plain.mean_shift + 0.5, abs=1e-3)
    assert top.distance >= abs(top.mean_shift) - 1e-6
    assert top.side == ("observation" if channel < D else "action")


def test_twice_the_spread_is_found_where_the_mean_stays() -> None:
    centred = NEW.action[:, 0].mean()
    report = compared(OLD, moved(moved(moved(NEW, D, by=-centred), D, times=2.0), D, by=OLD.action[:, 0].mean()))
    top = report.ranked()[0]
    assert (top.name, report.p[top.name] <= ALPHA) == ("action.a0", True)
    assert top.spread == pytest.approx(2 * shifts(OLD, NEW)[D].spread, rel=1e-3)
    assert abs(top.mean_shift) < 1e-3
    assert top.distance > 0.3


def test_nothing_moved_is_nothing() -> None:
    for each in shifts(OLD, OLD):
        assert (each.distance, each.mean_shift, each.spread) == (0, 0, 1)


def test_the_distance_is_that_of_sorted_values() -> None:
    old, new = OLD.action[:500], NEW.action[:500]
    ends = np.array([500])
    found = shifts(
        replace(OLD, observation=OLD.observation[:500], action=old, episode_ends=ends),
        replace(NEW, observation=NEW.observation[:500], action=new, episode_ends=ends),
    )[D]
    expected = np.abs(np.sort(old[:, 0].astype(float)) - np.sort(new[:, 0].astype(float))).mean()
    assert found.distance == pytest.approx(expected / old[:, 0].astype(float).std())


def test_histograms_hold_every_step() -> None:
    for each in shifts(OLD, moved(NEW, 0, by=30.0)):
        assert each.old_bars.sum() == pytest.approx(1)
        assert each.new_bars.sum() == pytest.approx(1)


def still(demos, value: float, noise: float = 0.0):
    observation = demos.observation.copy()
    observation[:, 0] = value + noise * np.random.default_rng(0).normal(size=len(observation))
    return replace(demos, observation=observation)


def test_the_noise_of_a_channel_that_stands_still_is_no_unit() -> None:
    """Deviation 1e-5 on a range of 18: ten such deviations are nothing, a hundredth of the range is much."""
    old = still(OLD, 1.0, noise=1e-5)
    quiet, loud = shifts(old, still(NEW, 1.0001, noise=1e-5))[0], shifts(old, still(NEW, 1.18, noise=1e-5))[0]
    assert quiet.distance < 0.01
    assert loud.distance == pytest.approx(0.18 / (STILL * 18), rel=0.01)


def test_a_channel_without_range_or_motion_is_finite() -> None:
    spec = replace(OLD.spec, observation=(Channel("o0", "", 1.0, 1.0), *OLD.spec.observation[1:]))
    old, new = replace(still(OLD, 1.0), spec=spec), replace(still(NEW, 1.0), spec=spec)
    assert shifts(old, new)[0].distance == 0
    assert shifts(old, replace(still(NEW, 3.0), spec=spec))[0].distance == 2


@up_to(25)
@given(
    st.sampled_from([0.0, 1.0, -7.5, 3e-8, 8.9]),
    st.sampled_from([0.0, 1e-7, 1.0]),
    st.sampled_from([0.0, 1.0, 1e-6, -3.0]),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_never_nan(value: float, noise: float, times: float, before: int, after: int) -> None:
    old = still(process(0, before), value, noise)
    new = moved(still(process(1, after), value * 0.5, noise), D, times=times)
    for one, two in ((old, new), (new, old)):
        report = compared(one, two)
        numbers = [getattr(each, name) for each in report.shifts for name in ("distance", "mean_shift", "spread")]
        numbers += [each.divergence for each in report.layers] + [each.ratio for each in report.tails]
        assert np.isfinite([*numbers, *report.p.values()]).all()
