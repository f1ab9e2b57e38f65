"""Sample sizes: exact power against simulation, and what retraining does by itself."""

from __future__ import annotations

import numpy as np
import pytest

from vqbet.contract import GateError
from vqbet.statistics import Pairs, Retraining, mean_needed, mean_power, pairs_needed, pairs_power
from vqbet.statistics.means import Sample
from vqbet.statistics.pairs import tango_zs

ALPHA = 0.05


def z_of(pairs: Pairs, difference: float) -> float:
    """Tango's z of one pair of counts."""
    return float(tango_zs(pairs.episodes, np.array(pairs.gained), np.array(pairs.lost), difference))


@pytest.mark.parametrize(("gained", "lost", "limit"), [(0.1, 0.1, -0.05), (0.15, 0.05, 0.0), (0.02, 0.07, -0.05)])
def test_exact_power_is_what_simulation_finds(gained: float, lost: float, limit: float) -> None:
    drawn = np.random.default_rng(1).multinomial(300, [gained, lost, 1 - gained - lost], 4000)
    shown = np.mean([z_of(Pairs(300, int(a), int(b)), limit) > 1.64485 for a, b, _ in drawn])
    power = pairs_power(300, gained=gained, lost=lost, limit=limit, alpha=ALPHA)
    assert power == pytest.approx(shown, abs=0.02)


def test_power_at_the_limit_is_the_error_rate() -> None:
    assert pairs_power(400, gained=0.05, lost=0.10, limit=-0.05, alpha=ALPHA) == pytest.approx(ALPHA, abs=0.003)


def test_the_number_needed_has_the_power_asked_for() -> None:
    needed = pairs_needed(0.9, gained=0.1, lost=0.1, limit=-0.05, alpha=ALPHA)
    assert needed is not None
    assert 660 < needed < 720  # (1.645 + 1.282)^2 0.2 / 0.05^2 = 685
    assert pairs_power(needed, gained=0.1, lost=0.1, limit=-0.05, alpha=ALPHA) >= 0.9
    assert pairs_power(round(0.97 * needed), gained=0.1, lost=0.1, limit=-0.05, alpha=ALPHA) < 0.9
    assert pairs_needed(0.9, gained=0.1, lost=0.1, limit=-0.001, alpha=ALPHA) is None


@pytest.mark.slow
def test_the_approximation_for_scores_is_what_simulation_finds() -> None:
    """Within two points of the stated power, at the stated size."""
    needed = mean_needed(0.8, spread=0.3, difference=0.0, limit=-0.05, alpha=ALPHA)
    assert mean_power(needed, spread=0.3, difference=0.0, limit=-0.05, alpha=ALPHA) == pytest.approx(0.8, abs=0.005)
    differences = np.random.default_rng(2).uniform(-1, 1, (4000, needed)) * 0.3 * np.sqrt(3)
    shown = np.mean([Sample.of((row + 1) / 2).z(0.475) > 1.64485 for row in differences])
    assert shown == pytest.approx(0.8, abs=0.02)


def test_what_retraining_does_by_itself() -> None:
    noise = Retraining((0.80, 0.84, 0.82, 0.86))
    assert noise.deviation == pytest.approx(0.02582, abs=1e-5)
    assert noise.chance(0.0) == pytest.approx(0.5)
    assert noise.chance(0.02) > 0.25  # two points are nothing
    assert noise.chance(0.20) < 0.01
    assert Retraining((0.8, 0.8)).chance(0.01) == 0.0


@pytest.mark.slow
def test_of_two_trainings_of_one_recipe_few_are_called_apart() -> None:
    random = np.random.default_rng(3)
    trained = (0.7 + 0.03 * random.standard_normal((4000, 5))).clip(0, 1)
    called = [Retraining(tuple(row[:3])).chance(row[3] - row[4]) <= ALPHA for row in trained]
    assert np.mean(called) == pytest.approx(ALPHA, abs=0.012)


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(GateError, match=r"a difference of -0.1 is never shown to be above 0"):
        pairs_needed(0.9, gained=0.1, lost=0.2, limit=0.0, alpha=ALPHA)
    with pytest.raises(GateError, match=r"a difference of 0 is never shown to be above 0"):
        mean_needed(0.9, spread=0.1, difference=0.0, limit=0.0, alpha=ALPHA)
    with pytest.raises(GateError, match="expected 1 to 4000 episodes, got 5000"):
        pairs_power(5000, gained=0.1, lost=0.1, limit=0.0, alpha=ALPHA)
    with pytest.raises(GateError, match="shares of pairs that differ"):
        pairs_power(50, gained=0.9, lost=0.3, limit=0.0, alpha=ALPHA)
    with pytest.raises(GateError, match="a spread and episodes above 0"):
        mean_power(50, spread=0.0, difference=0.1, limit=0.0, alpha=ALPHA)
    with pytest.raises(GateError, match="two or more mean scores"):
        Retraining((0.8,))
