"""The order of windows over processes: any number of them takes the same windows in the same steps."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from vqbet.training import loop
from vqbet.training.recipe import Recipe, order

RECIPE = Recipe(steps=50, batch=192, lr=1e-3, warmup=1, min_lr=0.1, weight_decay=0.0, clip=0.0, ema=0.0, seed=3)
COUNT = 1001  # windows: an epoch ends within a step


def share(processes: int, index: int, step: int) -> np.ndarray:
    accelerator = SimpleNamespace(num_processes=processes, process_index=index)
    return loop._Run.windows(SimpleNamespace(recipe=RECIPE, accelerator=accelerator, step=step), COUNT)  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [1, 2, 4, 8, 64])
def test_the_shares_of_all_processes_are_the_batch_of_one(processes: int) -> None:
    for step in range(RECIPE.steps):
        shares = [share(processes, index, step) for index in range(processes)]
        assert {len(one) for one in shares} == {RECIPE.batch // processes}
        assert np.array_equal(np.concatenate(shares), order(RECIPE.seed, COUNT, RECIPE.batch, step))


@pytest.mark.parametrize("processes", [2, 8, 64])
def test_no_window_is_taken_twice_in_an_epoch_by_whatever_process(processes: int) -> None:
    taken = np.concatenate(
        [share(processes, index, step) for step in range(RECIPE.steps) for index in range(processes)]
    )
    whole = len(taken) // COUNT * COUNT
    assert (np.bincount(taken[:whole], minlength=COUNT) == whole // COUNT).all()
