"""Holm's correction beside another library's."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from vqbet.statistics.multiple import holm


@pytest.mark.slow
@pytest.mark.parametrize(
    "values", [[0.01, 0.04, 0.03, 0.5], [0.001, 0.04, 0.012, 0.9, 0.012, 0.03], [0.4, 0.9], [0.02]]
)
def test_it_is_that_of_another_library(values: list[float]) -> None:
    np.testing.assert_allclose(holm(np.array(values)), multipletests(values, method="holm")[1])


def test_it_is_right_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.5])) == pytest.approx([0.04, 0.09, 0.09, 0.5])


def test_of_nothing_it_is_nothing() -> None:
    assert holm(np.zeros(0)).tolist() == []
