"""The paper's Push-T recipe on a GPU: seconds for 225,000 steps of batch 512 in fp32, bf16, compiled; the roofline.

    make gpu        (python -m bench.gpu [--seconds 120])

Trains by `vqbet.training.loop.train`, checkpoints and history included, for about `--seconds` each, or all
steps if they take less, and extrapolates. "floor" is the shortest time that this GPU's measured matrix rate and memory
bandwidth allow: arithmetic at the rate of a large product of the same precision, or the weights' traffic of one
optimiser step. "of rate" is the share of the matrix rate that the step uses; "busy" is nvidia-smi's utilisation, the
share of time with any kernel at work. Where busy is high and the share of the rate low, kernels are small: then the
number of launches decides, not the GPU's speed. "begins" are the seconds before the first step: where a row ends with
+, of the compiler. Its gain per step tells from how many steps on compiling pays (`device.WORTH_STEPS`). "loss" is the
last of the history; `loss_fp32` and `loss_bf16` are of the same weights on the same batch.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.sizes import CODES, GPT, vqbet
from tests.support.synthetic import synthetic
from vqbet.demos.windows import Windows
from vqbet.models.prior import Prior
from vqbet.training import device
from vqbet.training.loop import step_seconds, train
from vqbet.training.recipe import Recipe, Stored, seed_everything

STEPS, BATCH = 225_000, 512  # of the paper's Push-T
EPISODES = 206
TRAINING: dict[str, Any] = {
    **{"lr": 5.5e-5, "warmup": 0, "min_lr": 1.0, "weight_decay": 0.01},
    **{"clip": 1.0, "ema": 0.999, "seed": 0},
}
TARGET_S = 300.0
SIDE, GIB = 8192, 2**30
TOUCHED = 4 * (4 + 3 + 1 + 2)  # bytes per weight: optimiser's reads and writes, backward's gradient, the average
NOTHING = "gpu: no GPU is visible here, so nothing was measured; run it on a machine where nvidia-smi lists one"
WAYS: tuple[tuple[Stored, bool], ...] = (("fp32", False), ("bf16", False), ("bf16", True))  # whether compiled


@dataclass(frozen=True, slots=True)
class Peak:
    """Measured limits of a GPU: operations per second of a large matrix product, and bytes per second of a copy."""

    flops: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Timing:
    """A measured training. flops: of one step; busy: share of time in percent, nan if unknown; begins: seconds."""

    precision: Stored
    compiled: bool
    steps: int
    seconds: float
    flops: float
    weights: int
    busy: float
    loss: float
    begins: float
    checked: dict[str, float]

    def whole_s(self) -> float:
        """Return the seconds of all STEPS at the measured rate."""
        return self.seconds / self.steps * STEPS

    def floor_s(self, peak: Peak) -> float:
        """Return the least seconds for all STEPS that `peak` allows."""
        return STEPS * max(self.flops / peak.flops, TOUCHED * self.weights / peak.bandwidth)

    def share(self, peak: Peak) -> float:
        """Return the share of the peak's operations per second that the training used."""
        return self.flops * self.steps / self.seconds / peak.flops


def flops(model: Prior, batch: dict[str, Any]) -> int:
    """Return the floating-point operations of a forward and backward pass, products alone."""
    with FlopCounterMode(display=False) as counter:
        model.loss(batch)[0].backward()
    return int(counter.get_total_flops())


def steps_within(seconds: float, step_s: float) -> int:
    """Return how many steps to measure: what fits into `seconds`, at most all."""
    return max(1, min(STEPS, int(seconds / step_s)))


def row(timing: Timing, peak: Peak) -> str:
    how = "measured" if timing.steps == STEPS else f"from {timing.steps:,} steps"
    name = timing.precision + "+" * timing.compiled
    numbers = "".join(f", {name} {value:.4f}" for name, value in timing.checked.items())
    return (
        f"{name:>5}{1e3 * timing.seconds / timing.steps:9.3f}{timing.whole_s():9.0f}"
        f"{timing.whole_s() / TARGET_S:9.2f}{timing.floor_s(peak):9.1f}{timing.share(peak):9.2%}{timing.busy:7.0f}%"
        f"{timing.loss:10.4f}{timing.begins:8.1f}  {how}{numbers}"
    )


def peak(precision: Stored) -> Peak:
    """Measure the GPU's limits: the best of several large products, and of several large copies."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=kind) for _ in range(2))
    wide = torch.empty(4 * GIB, dtype=torch.uint8, device="cuda")
    into = torch.empty_like(wide)
    return Peak(2 * SIDE**3 / _best(lambda: a @ b), 2 * wide.numel() / _best(lambda: into.copy_(wide)))


def _best(call: Callable[[], object], rounds: int = 10) -> float:
    took = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return min(took)


@contextmanager
def busy() -> Iterator[list[float]]:
    """Sample nvidia-smi's utilisation in percent, once a second, until the block ends. Without it no samples come."""
    samples: list[float] = []
    if shutil.which("nvidia-smi") is None:
        yield samples
        return
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(1.0):
            words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            samples.extend(float(line) for line in done.stdout.split() if line.isdigit())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def timed(precision: Stored, seconds: float, *, compiled: bool) -> Timing:
    """Return a training of about `seconds` in one way, its start and calibration not counted."""
    windows = Windows(synthetic(EPISODES, seed=0, D=20, A=2), window=GPT.window, chunk=CODES.chunk)
    recipe = Recipe(steps=STEPS, batch=BATCH, precision=precision, **TRAINING)
    seed_everything(0)
    spent = vqbet()
    operations = flops(
        spent, {name: torch.as_tensor(value) for name, value in windows.gather(np.arange(BATCH)).items()}
    )
    step_s = step_seconds(spent, windows.gather, len(windows), recipe, min(10.0, seconds / 10), compiled=compiled)
    seed_everything(0)
    model = vqbet()
    recipe = replace(recipe, steps=steps_within(seconds, step_s))
    with tempfile.TemporaryDirectory() as folder, busy() as samples:
        began = time.monotonic()
        found = train(
            model,
            windows.gather,
            len(windows),
            recipe,
            folder=Path(folder),
            fingerprint="bench.gpu",
            track=_ignore,
            compiled=compiled,
        )
        begins = time.monotonic() - began - found.seconds
    count = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    mean = float(np.mean(samples)) if samples else float("nan")
    loss = found.history[-1]["loss"]
    return Timing(
        found.ran.precision,
        found.ran.compiled,
        recipe.steps,
        found.seconds,
        operations,
        count,
        mean,
        loss,
        begins,
        found.checked,
    )


def _ignore(step: int, metrics: object) -> None:
    """Ignore all progress."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="of training in each way")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(NOTHING)
        return
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}: VQ-BeT, {STEPS:,} steps of batch {BATCH}",
        flush=True,
    )
    print(f"precision auto: {device.precision('auto', device.visible())}")
    limits = {precision: peak(precision) for precision in dict.fromkeys(precision for precision, _ in WAYS)}
    torch.cuda.empty_cache()
    for precision, limit in limits.items():
        print(f"{precision}: {limit.flops / 1e12:.0f} TFLOP/s in products, {limit.bandwidth / 1e12:.2f} TB/s in copies")
    print("      ms/step  whole s   x 300 s  floor s  of rate   busy      loss  begins", flush=True)
    for precision, compiled in WAYS:
        print(row(timed(precision, options.seconds, compiled=compiled), limits[precision]), flush=True)


if __name__ == "__main__":
    main()
