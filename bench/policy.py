"""Time of one action: the PushT-sized policy, predicting at every step, for 1 and for 64 episodes.

    OMP_NUM_THREADS=1 python bench/policy.py [--threads 1] [--repeats 200]

Weights are random: time does not depend on them. The sizes are those of pusht in params.yaml, beside the paper's.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from vqbet import config
from vqbet.contract import Channel, Spec
from vqbet.normalizer import Normalizer
from vqbet.policies.vqbet import Execution, VQBeT
from vqbet.prior import Prior, PriorShape
from vqbet.tokenizer import Tokenizer, TokenizerShape

OBSERVATION, ACTION = 20, 2
PAPER = (TokenizerShape(5, 2, 16, 512, 128), PriorShape(5, 6, 6, 120, 1024, 0.1, False))


def shipped() -> tuple[TokenizerShape, PriorShape]:
    params = config.task(Path(__file__).resolve().parent.parent / "params.yaml", "pusht")
    code, prior = params.tokenizer, params.prior
    return (
        TokenizerShape(code.chunk, code.layers, code.codes, code.latent, code.hidden),
        PriorShape(
            prior.window, prior.depth, prior.heads, prior.width, prior.head_hidden, prior.dropout, prior.sequential
        ),
    )


def policy(code: TokenizerShape, shape: PriorShape) -> VQBeT:
    torch.manual_seed(0)
    tokenizer = Tokenizer(Normalizer(ACTION), code)
    tokenizer.trained_steps += 1
    channels = tuple(Channel(f"channel{index}", "px", -1.0, 1.0) for index in range(OBSERVATION))
    spec = Spec("pusht", channels, channels[:ACTION], 10.0, "absolute", "table")
    return VQBeT(spec, Prior(tokenizer, Normalizer(OBSERVATION), shape), Execution("first"))


def milliseconds(player: VQBeT, batch: int, repeats: int) -> np.ndarray:
    player.reset(np.arange(batch))
    stream = np.random.default_rng(0).normal(size=(repeats + 20, batch, OBSERVATION)).astype(np.float32)
    rows, times = np.arange(batch), []
    for observation in stream:
        start = time.perf_counter()
        player.act(observation, rows)
        times.append(1e3 * (time.perf_counter() - start))
    return np.array(times[20:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name, sizes in (("params.yaml", shipped()), ("paper", PAPER)):
        player = policy(*sizes)
        count = sum(value.size for part in player.components().values() for value in part.values())
        for batch in (1, 64):
            times = milliseconds(player, batch, options.repeats)
            print(
                f"{name:12} {count / 1e6:.2f} M numbers  batch {batch:3}  min {times.min():.2f} ms  "
                f"median {np.median(times):.2f}  p99 {np.quantile(times, 0.99):.2f}"
            )


if __name__ == "__main__":
    main()
