"""Time per action of every policy at its paper's size, for 1 and for 64 episodes, on 1 and on 2 cores.

    python -m bench.policies [--threads 1 2] [--batches 1 64] [--rounds 15]

Policies alternate, ACTIONS actions each, round after round, so that other load on the machine affects all alike and
each starts with the caches of the others. "A call" is a call that plans: VQ-BeT, BC, BeT and BESO plan at every step,
Diffusion Policy once for 8 actions (10 denoising steps). "An action" is the time of ACTIONS steps divided by their
number. Minima show the cost of a policy, medians its cost under the present load. `x` is the ratio to VQ-BeT's time.
On a shared machine use `nice -n -10`, as root.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from bench.sizes import SIZES, VQBET, Sized, parameters, vqbet
from vqbet import config
from vqbet.models.prior import PriorShape
from vqbet.models.tokenizer import TokenizerShape
from vqbet.policies.actor import Actor

ACTIONS = 8  # of each policy in a round: the actions that Diffusion Policy executes of a plan
FEWER = 5  # factor by which rounds are fewer with more than one episode


def shipped() -> Sized:
    """Return VQ-BeT at its size in params.yaml for Push-T."""
    params = config.task(Path(__file__).resolve().parent.parent / "params.yaml", "pusht")
    code, prior = params.tokenizer, params.prior
    codes = TokenizerShape(code.chunk, code.layers, code.codes, code.latent, code.hidden, code.kind)
    shape = PriorShape(**{field.name: getattr(prior, field.name) for field in fields(PriorShape)})
    return Sized(lambda: vqbet(codes, shape), (20, 2, 0), params.bundle.execute)


def played(actor: Actor, batch: int) -> np.ndarray:
    """Return the milliseconds of each of the first ACTIONS actions of `batch` episodes."""
    rows, seen, wanted = np.arange(batch), len(actor.spec.observation), len(actor.goal)
    generator = np.random.default_rng(0)
    actor.reset(rows, generator.uniform(-1, 1, (batch, wanted)).astype(np.float32))
    times = []
    for observation in generator.uniform(-1, 1, (ACTIONS, batch, seen)).astype(np.float32):
        start = time.perf_counter()
        actor.act(observation, rows)
        times.append(1e3 * (time.perf_counter() - start))
    return np.array(times)


def measured(actors: Mapping[str, Actor], batch: int, rounds: int) -> dict[str, np.ndarray]:
    """Return (rounds, ACTIONS) milliseconds of every policy, after one warm-up round."""
    times: dict[str, list[np.ndarray]] = {name: [] for name in actors}
    for _ in range(rounds + 1):
        for name, actor in actors.items():
            times[name].append(played(actor, batch))
    return {name: np.stack(rows[1:]) for name, rows in times.items()}


def shown(times: Mapping[str, np.ndarray], actors: Mapping[str, Actor]) -> None:
    print(f"{'':24}{'numbers':>9}{'a call: min':>13}{'median':>9}{'p99':>9}{'x min':>8}{'x med':>8}", end="")
    print(f"{'an action: min':>17}{'median':>9}{'x min':>8}{'x med':>8}")
    first: tuple[np.ndarray, np.ndarray] | None = None
    for name, rows in times.items():
        every = actors[name].planner.chunk if actors[name].execute == "chunk" else 1
        planning = rows[:, ::every]
        call = np.quantile(planning, (0, 0.5, 0.99))
        action = np.quantile(rows.mean(axis=1), (0, 0.5))
        first = first or (call, action)
        more, less = call[:2] / first[0][:2], action / first[1]
        print(
            f"{name:24}{parameters(actors[name]) / 1e6:7.2f} M{call[0]:13.2f}{call[1]:9.2f}{call[2]:9.2f}"
            f"{more[0]:8.1f}{more[1]:8.1f}{action[0]:17.2f}{action[1]:9.2f}{less[0]:8.1f}{less[1]:8.1f}"
        )


def cores(count: int) -> None:
    """Use `count` threads, on as many cores where the system allows a choice."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(USABLE)[-count:])
    torch.set_num_threads(count)


USABLE: Sequence[int] = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {VQBET: SIZES[VQBET], "VQ-BeT, params.yaml": shipped()} | SIZES
    actors = {name: size.actor() for name, size in sizes.items()}
    for threads in options.threads:
        cores(threads)
        for batch in options.batches:
            print(f"{threads} threads, {batch} episodes, ms")
            rounds = options.rounds if batch == 1 else max(1, options.rounds // FEWER)
            shown(measured(actors, batch, rounds), actors)


if __name__ == "__main__":
    main()
