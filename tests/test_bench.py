"""What the measurements compare with does the work it claims to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.policies import measured, shipped
from bench.sizes import CODES, GPT, SIZES, vqbet
from bench.slices import Slices, batches
from bench.standin import StandIn
from bench.training import trained
from tests.support.synthetic import synthetic
from vqbet.demos.windows import Windows


@pytest.mark.parametrize(("window", "chunk"), [(5, 5), (1, 1), (2, 16), (16, 1)])
def test_slices_are_the_windows(window: int, chunk: int) -> None:
    demos = synthetic(6)
    windows, slices = Windows(demos, window=window, chunk=chunk), Slices(demos, window=window, chunk=chunk)
    assert len(slices) == len(windows)
    for index, expected in enumerate(zip(*windows.gather(np.arange(len(windows))).values(), strict=True)):
        for one, other in zip(slices[index].values(), expected, strict=True):
            assert np.array_equal(one.numpy(), other)


def test_the_stand_in_trains_everything_but_the_tokenizer() -> None:
    slices = Slices(synthetic(6, D=20), window=GPT.window, chunk=CODES.chunk)
    model = StandIn(vqbet().tokenizer, observation=20, window=GPT.window)
    parts = {"gpt": model.gpt, "codes": model.code_head, "offsets": model.offset_head}
    before = {name: [value.clone() for value in part.parameters()] for name, part in parts.items()}
    loader = batches(slices, 16)
    losses = [model.step(next(loader)) for _ in range(2)]
    assert np.isfinite(losses).all()
    for name, part in parts.items():
        assert not any(torch.equal(*pair) for pair in zip(before[name], part.parameters(), strict=True)), name


def test_a_measured_step_trains_as_the_training_loop_does() -> None:
    windows = Windows(synthetic(6, D=20), window=GPT.window, chunk=CODES.chunk)
    step = trained(vqbet(), windows, 32)
    losses = [step() for _ in range(12)]
    assert losses[-1] < losses[0]


def test_a_measured_policy_plays() -> None:
    actors = {name: SIZES[name].actor() for name in ("VQ-BeT", "BeT, BlockPush", "BESO, BlockPush")}
    times = measured(actors | {"shipped": shipped().actor()}, 2, 1)
    assert all(rows.shape == (1, 8) and (rows > 0).all() for rows in times.values())
