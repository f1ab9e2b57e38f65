"""What a tokenizer makes of both versions: codes that fall out of use, and errors that grow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from tests.support.drifting import CODES, coded, compared, moved, process
from vqbet.drift.chance import ALPHA
from vqbet.drift.coding import LEAST_ERROR, divergence, layers, tails

OLD, NEW = process(2, 160), process(3, 160)


def test_the_divergence_is_jensens_and_shannons() -> None:
    random = np.random.default_rng(0)
    old, new = random.integers(0, 50, (5, 8)), random.integers(0, 50, (5, 8))
    old[0, :3] = 0
    expected = [jensenshannon(one, two, base=2) ** 2 for one, two in zip(old, new, strict=True)]
    np.testing.assert_allclose(divergence(old, new), expected, atol=1e-12)


def test_from_nothing_to_everything() -> None:
    one, other = np.array([[3, 5, 0, 0]]), np.array([[0, 0, 4, 4]])
    assert divergence(one, 2 * one)[0] == 0
    assert divergence(one, other)[0] == pytest.approx(1)
    assert np.isfinite(divergence(one, np.zeros((1, 4)))).all()


def test_codes_that_go_out_of_use_are_named() -> None:
    old, new = coded(OLD), coded(NEW)
    lost = replace(new, codes=np.where(new.codes == 4, 3, new.codes))
    assert [layer.unused for layer in layers(old, lost)] == [[4], [4]]
    assert [layer.used for layer in layers(lost, old)] == [[4], [4]]
    assert all(layer.old.sum() == pytest.approx(1) and len(layer.new) == CODES for layer in layers(old, lost))


def test_a_process_that_stops_using_a_code_asks_for_a_tokenizer() -> None:
    """The left half of what one action did is no longer done."""
    left = replace(NEW, action=np.stack([np.abs(NEW.action[:, 0]), NEW.action[:, 1]], axis=1))
    report = compared(OLD, left)
    assert report.layers[0].unused == [0, 1, 2, 3]
    assert report.p["layer 0"] <= ALPHA
    assert ("max_divergence", "layer 0", "tokenizer") in [
        (each.threshold, each.what, each.asks) for each in report.exceeded
    ]
    assert report.conclusion.startswith("a new tokenizer is needed: max_shift is 0.2, but action.a0 has ")
    assert "max_divergence is 0.02, but layer 0 has " in report.conclusion


def test_errors_that_grow_are_the_tail() -> None:
    """Twice as far out the grid ends: both its mean and its tail are larger there."""
    report = compared(OLD, moved(NEW, 3, times=1.6))
    grown, other = report.tails
    assert grown.ratio > 1.5
    assert report.p["tail of action.a0"] <= ALPHA
    assert other.ratio == pytest.approx(1, abs=0.5)
    assert "max_tail" in {each.threshold for each in report.exceeded}


def test_quantiles_are_those_of_all_errors() -> None:
    made = coded(OLD)
    found = tails(made, made)[0]
    assert found.old_p99 == pytest.approx(np.quantile(made.error[..., 0], 0.99))
    assert found.old_mean == pytest.approx(made.error[..., 0].mean())
    assert found.ratio == 1


def test_no_error_before_is_no_division_by_nothing() -> None:
    made = coded(OLD)
    exact = replace(made, error=np.zeros_like(made.error))
    found = tails(exact, made)[0]
    assert found.ratio == pytest.approx(found.new_p99 / (LEAST_ERROR * found.scale))
    assert tails(exact, exact)[0].ratio == 1
