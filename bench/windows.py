"""Speed of gathering windows on one core, compared with copying the same bytes and with slicing window by window.

    OMP_NUM_THREADS=1 python -m bench.windows [batch ...]

Uses Push-T's size and shape: 26,023 synthetic steps (Push-T has 25,650), D=20, A=2, T=5, H=5. Every epoch visits every
window once, in random order, in batches; the best of several epochs is printed. The peer is a Dataset that slices, in a
DataLoader without workers (`bench.slices`), with one batch size, which hardly affects its speed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.slices import Slices, batches
from tests.support.synthetic import synthetic
from vqbet.contract import Demonstrations
from vqbet.demos.windows import Windows

EPISODES, WINDOW, CHUNK, EPOCHS = 570, 5, 5, 9
PEER_BATCH = 512
WANTED = 1_000_000  # target, windows per second on one core


def best_s(work: Callable[..., object], *arguments: Any) -> float:
    """Return the time of the fastest of several runs, in seconds."""
    durations = []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        work(*arguments)
        durations.append(time.perf_counter() - start)
    return min(durations)


def epoch(windows: Windows, order: np.ndarray, batch: int) -> None:
    for start in range(0, len(order), batch):
        windows.gather(order[start : start + batch])


def copies(source: np.ndarray, target: np.ndarray, count: int) -> None:
    for _ in range(count):
        np.copyto(target, source)


def sliced(demos: Demonstrations) -> float:
    """Return the windows per second of the peer."""
    loader = batches(Slices(demos, window=WINDOW, chunk=CHUNK), PEER_BATCH)
    next(loader)
    return PEER_BATCH / best_s(lambda: next(loader))


def main(sizes: list[int]) -> None:
    demos = synthetic(EPISODES, seed=0, D=20, A=2)
    windows, peer = Windows(demos, window=WINDOW, chunk=CHUNK), sliced(demos)
    order = np.random.default_rng(0).permutation(len(windows))
    size = sum(array.nbytes for array in windows.gather(order[:1]).values())
    print(f"{len(windows):,} windows of {size} bytes; wanted {WANTED / 1e6:.1f} M windows/s")
    print(f"sliced one by one, DataLoader, batch {PEER_BATCH}: {peer:,.0f} windows/s")
    for batch in sizes:
        source = np.ones(batch * size, np.uint8)
        count = -(-len(order) // batch)
        gathered = len(order) / best_s(epoch, windows, order, batch)
        copied = count * batch / best_s(copies, source, source.copy(), count)
        print(
            f"batch {batch:5d}: {gathered / 1e6:6.2f} M windows/s, {gathered * size / 1e9:5.2f} GB/s; "
            f"copying the bytes alone: {copied / 1e6:6.2f} M windows/s, {copied / gathered:.1f} x; "
            f"slicing them: {gathered / peer:.0f} times slower"
        )


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [64, 256, 1024, 4096])
