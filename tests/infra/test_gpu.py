"""Tests of `make gpu`: its arithmetic, and what it says where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from bench import gpu
from bench.sizes import CODES, GPT, vqbet
from tests.support.infra import INFRA
from tests.support.synthetic import synthetic
from vqbet.demos.windows import Windows


def timing(**given: Any) -> gpu.Timing:
    facts: dict[str, Any] = {"precision": "bf16", "compiled": False, "steps": 1000, "seconds": 2.0, "flops": 1e9}
    facts |= {"weights": 10**6, "busy": 50.0, "loss": 0.5, "begins": 0.1, "checked": {}}
    return gpu.Timing(**{**facts, **given})


def test_the_whole_training_is_extrapolated_from_the_measured_steps() -> None:
    assert timing().whole_s() == pytest.approx(225_000 * 2e-3)
    assert timing(steps=gpu.STEPS, seconds=280.0).whole_s() == pytest.approx(280.0)


def test_the_floor_is_the_larger_of_arithmetic_and_traffic() -> None:
    fast_memory = gpu.Peak(flops=1e12, bandwidth=1e15)
    assert timing().floor_s(fast_memory) == pytest.approx(gpu.STEPS * 1e9 / 1e12)
    slow_memory = gpu.Peak(flops=1e15, bandwidth=1e9)
    assert timing().floor_s(slow_memory) == pytest.approx(gpu.STEPS * 40 * 1e6 / 1e9)
    assert timing().share(fast_memory) == pytest.approx(1e9 * 1000 / 2.0 / 1e12)


@pytest.mark.parametrize(("step_s", "steps"), [(1e-3, 200_000), (1e-6, gpu.STEPS), (1e3, 1)])
def test_no_more_steps_are_measured_than_fit(step_s: float, steps: int) -> None:
    assert gpu.steps_within(200.0, step_s) == steps


def test_a_row_says_whether_it_was_measured_or_extrapolated() -> None:
    peak = gpu.Peak(flops=1e14, bandwidth=4e12)
    assert gpu.row(timing(), peak).endswith("from 1,000 steps")
    assert gpu.row(timing(steps=gpu.STEPS, seconds=270.0), peak).endswith("measured")
    assert "     0.90" in gpu.row(timing(steps=gpu.STEPS, seconds=270.0), peak), "of five minutes"


def test_a_row_says_whether_it_was_compiled_and_what_the_precision_costs() -> None:
    peak = gpu.Peak(flops=1e14, bandwidth=4e12)
    row = gpu.row(timing(compiled=True, begins=61.0, checked={"loss_fp32": 0.25, "loss_bf16": 0.26}), peak)
    assert row.startswith("bf16+")
    assert row.endswith("    61.0  from 1,000 steps, loss_fp32 0.2500, loss_bf16 0.2600")
    assert gpu.row(timing(), peak).startswith(" bf16 ")


def test_operations_grow_with_the_batch() -> None:
    windows = Windows(synthetic(4, seed=0, D=20, A=2), window=GPT.window, chunk=CODES.chunk)
    counted = []
    for size in (8, 16):
        batch = windows.gather(torch.arange(size).numpy())
        counted.append(gpu.flops(vqbet(), {name: torch.as_tensor(value) for name, value in batch.items()}))
    assert counted[1] == pytest.approx(2 * counted[0], rel=1e-3)
    assert counted[0] > 8 * 6 * sum(weight.numel() for weight in vqbet().decoder.parameters())


@pytest.mark.slow
def test_without_a_gpu_one_sentence_says_so() -> None:
    done = subprocess.run(
        ["bash", str(INFRA / "gpu.sh")],
        env={**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert done.stdout == gpu.NOTHING + "\n"


def test_without_nvidia_smi_the_utilisation_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with gpu.busy() as samples:
        pass
    assert samples == []
