"""Time per plan in onnxruntime and in torch, one episode, one thread, beside the time to read the weights.

    python -m bench.onnx [--rounds 60] [--tasks pusht blockpush]

Sizes: the paper's, and those of params.yaml by task; weights are random. Reader, torch and onnxruntime take turns,
PLANS plans each; the first COLD of a turn are not counted, so that the weights are in the processor's cache as far as
it holds them. "Read" is the sum of an array of as many bytes as a plan reads. Ratios are medians over rounds of the
ratio of medians within a round: other load on the machine affects all three alike. The last column counts the
operators that torch runs for a plan, inner ones included, and the nodes of the graph.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from bench.sizes import VQBET, vqbet
from vqbet import config
from vqbet.models.prior import Prior, PriorShape
from vqbet.models.tokenizer import TokenizerShape
from vqbet.policies import to_onnx
from vqbet.policies.in_onnx import InOnnx
from vqbet.policies.vqbet import VQBeT
from vqbet.tasks import TASKS

PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"
PLANS, COLD = 12, 3  # of each in a turn
ROWS = ("read", "torch", "onnxruntime")


def shipped(task: str) -> Prior:
    """Return VQ-BeT of a task in params.yaml, with its channels."""
    params, spec = config.task(PARAMS, task), TASKS[task].spec
    code, prior = params.tokenizer, params.prior
    codes = TokenizerShape(code.chunk, code.layers, code.codes, code.latent, code.hidden, code.kind)
    shape = PriorShape(**{field.name: getattr(prior, field.name) for field in fields(PriorShape)})
    goal = len(TASKS[task].goal) if shape.goal_steps else 0
    return vqbet(codes, shape, channels=(len(spec.observation), len(spec.action), goal))


def read_bytes(prior: Prior) -> int:
    """Return the bytes of weights that a plan of one episode reads: of the last layer of offsets only Q rows."""
    numbers: float = sum(parameter.numel() for parameter in prior.parameters() if parameter.requires_grad)
    if prior.offset_head is not None:
        weight, bias = prior.offset_head.head.products[-1]
        numbers -= (weight.numel() + bias.numel()) * (1 - 1 / prior.tokenizer.shape.codes)
    return int(4 * numbers)


def timed(work: Callable[[], object]) -> float:
    """Return the median milliseconds of a turn."""
    times = []
    for _ in range(PLANS):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times[COLD:]))


def measured(works: Mapping[str, Callable[[], object]], rounds: int) -> np.ndarray:
    """Return (rounds, works) milliseconds, after one round to warm up."""
    return np.array([[timed(work) for work in works.values()] for _ in range(rounds + 1)])[1:]


def operators(work: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    return len(seen.events())


def works(prior: Prior) -> tuple[dict[str, Callable[[], Any]], int]:
    """Return what takes turns, and the number of nodes of the graph."""
    import onnx

    planner, rng = VQBeT(prior), np.random.default_rng(0)
    observed, _, wanted = planner.channels
    observation = rng.uniform(-1, 1, (1, planner.window, observed)).astype(np.float32)
    goal = rng.uniform(-1, 1, (1, planner.goal_steps, wanted)).astype(np.float32) if wanted else None
    uniform = rng.uniform(size=(1, planner.draws))
    graph = to_onnx.graph(planner)
    exported = InOnnx(graph, to_onnx.shape(planner))
    weights = torch.ones(read_bytes(prior) // 4)
    plans: dict[str, Callable[[], Any]] = {
        "read": weights.sum,
        "torch": lambda: planner.plan(observation, goal, uniform),
        "onnxruntime": lambda: exported.plan(observation, goal, uniform),
    }
    assert np.array_equal(*(plans[name]().tags for name in ROWS[1:]))
    return plans, len(onnx.load_from_string(graph).graph.node)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--tasks", nargs="*", default=["pusht", "blockpush"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    priors = {f"{VQBET}, the paper's size": vqbet(), **{task: shipped(task) for task in options.tasks}}
    print(f"{'ms, median (minimum)':28}{'weights':>9}", *(f"{name:>15}" for name in ROWS), end="")
    print(f"{'onnx/torch':>12}{'onnx/read':>11}{'torch/read':>12}{'operators':>14}")
    for name, prior in priors.items():
        plans, nodes = works(prior)
        read, pytorch, runtime = times = measured(plans, options.rounds).T
        shares = (np.median(one / other) for one, other in ((runtime, pytorch), (runtime, read), (pytorch, read)))
        counted = operators(plans["torch"])  # before the line begins: the profiler writes to the terminal
        print(f"{name:28}{read_bytes(prior) / 1e6:6.1f} MB", end=" ")
        print(*(f"{np.median(row):7.3f} ({row.min():.3f})" for row in times), end="")
        print(*(f"{share:11.2f}" for share in shares), f"{counted:9}, {nodes}")


if __name__ == "__main__":
    main()
