"""Time per training step and samples/s of our VQ-BeT, a stand-in of the authors' step, and every other policy.

    python -m bench.training [--threads 1 2] [--rounds 5]

All have the sizes of `bench.sizes`, with 512 windows per step for VQ-BeT and 64 for the others. A step includes
gathering the windows; our steps clip gradients and average weights, as the training loop does. "all" supervises every
position of the window, as the paper does; "last" only the position that acts (`Objective.supervise`); "bf16" computes
products in bfloat16 (`Recipe.precision`). Candidates alternate, one step each. On a shared machine, read minima and
ratios instead of times. `x` is the ratio of samples/s to the stand-in (`bench.standin`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Container
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.policies import cores
from bench.sizes import CODES, GPT, SIZES, VQBET, vqbet
from bench.slices import Slices, batches
from bench.standin import StandIn
from tests.support.synthetic import synthetic
from vqbet.demos.goals import GoalWindows
from vqbet.demos.windows import Windows
from vqbet.models.prior import Objective
from vqbet.training.recipe import Recipe, groups, order

EPISODES, STANDIN = 570, "authors' step, stand-in"
OURS, OTHERS = 512, 64  # windows per step
RECIPE = Recipe(steps=1000, batch=OURS, lr=1e-4, warmup=0, min_lr=1.0, weight_decay=0.01, clip=1.0, ema=0.999, seed=0)
Step = Callable[[], float]


def trained(model: nn.Module, windows: Windows | GoalWindows, batch: int, *, bf16: bool = False) -> Step:
    """Return a training step equal to that of `vqbet.training.loop`, without checkpoints and history."""
    weights = [weight for weight in model.train().parameters() if weight.requires_grad]
    average = [torch.zeros_like(weight) for weight in weights]
    optimizer = torch.optim.AdamW(groups(model, RECIPE.weight_decay), lr=RECIPE.lr, fused=True)
    loss_of: Callable[..., Any] = model.loss  # type: ignore[assignment]  # nn.Module declares no `loss`
    done = 0

    def step() -> float:
        nonlocal done
        index = order(RECIPE.seed, len(windows), batch, done)
        values = {name: torch.as_tensor(value) for name, value in windows.gather(index).items()}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss, _ = loss_of(values)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, RECIPE.clip)
        optimizer.step()
        optimizer.zero_grad()
        torch._foreach_lerp_(average, [weight.detach() for weight in weights], 1 - RECIPE.ema)
        done += 1
        return float(loss.detach())

    return step


def standin() -> Step:
    demos = synthetic(EPISODES, seed=0, D=20, A=2)
    model = StandIn(vqbet().tokenizer, observation=20, window=GPT.window)
    loader = batches(Slices(demos, window=GPT.window, chunk=CODES.chunk), OURS)
    return lambda: model.step(next(loader))


def ours() -> dict[str, Step]:
    windows = Windows(synthetic(EPISODES, seed=0, D=20, A=2), window=GPT.window, chunk=CODES.chunk)
    found: dict[str, Step] = {}
    for positions in ("all", "last"):
        for bf16 in (False, True):
            words = [VQBET, positions, *(["bf16"] if bf16 else [])]
            model = vqbet(objective=Objective(supervise=positions))
            found[", ".join(words)] = trained(model, windows, OURS, bf16=bf16)
    return found


def others() -> dict[str, Step]:
    found: dict[str, Step] = {}
    for name, size in SIZES.items():
        if name == VQBET:
            continue
        observation, action, goal = size.channels
        demos = synthetic(60, seed=0, D=observation, A=action)
        model = size.build()
        chunk = getattr(model, "horizon", model.chunk)
        plain = Windows(demos, window=model.shape.window, chunk=chunk)
        names = [channel.name for channel in demos.spec.observation[:goal]]
        windows = GoalWindows(plain, demos, channels=names, steps=model.goal_steps) if goal else plain
        found[name] = trained(model, windows, OTHERS)
    return found


def milliseconds(steps: dict[str, Step], rounds: int) -> dict[str, np.ndarray]:
    """Return the milliseconds of every step in `rounds` alternating rounds, after one warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(values[1:]) for name, values in times.items()}


def shown(times: dict[str, np.ndarray], large: Container[str]) -> None:
    print(f"{'':28}{'batch':>6}{'ms a step: min':>16}{'median':>9}{'samples/s: best':>17}{'median':>9}", end="")
    print(f"{'x best':>8}{'x med':>8}")
    rates = {}
    for name, values in times.items():
        batch = OURS if name in large else OTHERS
        low, middle = np.quantile(values, (0, 0.5))
        rates[name] = 1e3 * batch / np.array([low, middle])
        best, median = rates[name]
        print(f"{name:28}{batch:6}{low:16.1f}{middle:9.1f}{best:17.1f}{median:9.1f}", end="")
        print("{:8.2f}{:8.2f}".format(*(rates[name] / rates[STANDIN])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    large = {STANDIN: standin()} | ours()
    steps = large | others()
    for threads in options.threads:
        cores(threads)
        print(f"{threads} threads")
        shown(milliseconds(steps, options.rounds), large)


if __name__ == "__main__":
    main()
