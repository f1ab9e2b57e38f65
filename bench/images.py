"""Pictures in the store on one core: bytes, reading in order and in windows, and memory when they grow 20 times.

    OMP_NUM_THREADS=1 python -m bench.images [--chunks 1 4 10] [--pusht FOLDER] [--video FILE]

Push-T's own pictures (96 x 96, drawn) are read from its replay buffer, by default in $VQBET_DEMOS or ../shared/data;
at 224 x 224 they are scaled. `--video` adds pictures of a real camera, decoded by PyAV and scaled to both sizes.
Windows are drawn in random order from a store whose files are in the page cache; chunks that are kept decoded make no
difference to a set that is much larger than they are, so none are kept. Bytes are those of the files.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tests.support.synthetic import synthetic
from vqbet.contract import Camera, Demonstrations
from vqbet.demos import store
from vqbet.demos.store import shards
from vqbet.demos.windows import Windows

STEPS, FEW, GROWN = 10_000, 3000, 20
CHUNK, BATCH, RUNS_S = 5, 64, 2.0
WANTED = {96: 2000, 224: 400}  # targets, windows per second on one core
Pictures = UInt8[np.ndarray, "N height width 3"]


def pusht(folder: Path) -> Pictures:
    """Return the first pictures of Push-T's replay buffer as whole numbers."""
    import zarr

    return np.asarray(zarr.open_array(str(folder), path="data/img", mode="r")[:STEPS]).astype(np.uint8)


def video(path: Path) -> Pictures:
    """Return the first pictures of a video."""
    import av

    with av.open(str(path)) as file:
        found = [frame.to_ndarray(format="rgb24") for frame in itertools.islice(file.decode(video=0), FEW)]
    return np.stack(found)


def scaled(pictures: Pictures, size: int) -> Pictures:
    """Return square pictures of `size` px, by the mean over areas."""
    import cv2

    if pictures.shape[1:3] == (size, size):
        return pictures
    return np.stack([cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) for picture in pictures])


def demonstrations(pictures: Pictures, times: int = 1, lossy: str = "") -> Demonstrations:
    """Return synthetic numbers with as many pictures, repeated `times` times, never all in memory."""
    numbers = synthetic(times * len(pictures) // 40 + 40, seed=0)
    steps = times * len(pictures)
    kept = int(np.searchsorted(numbers.episode_ends, steps))
    ends = np.append(numbers.episode_ends[:kept], steps)
    return replace(
        numbers,
        spec=replace(numbers.spec, cameras=(Camera("top", pictures.shape[1], pictures.shape[2], lossy),)),
        observation=numbers.observation[:steps],
        action=numbers.action[:steps],
        time_s=numbers.time_s[:steps],
        episode_ends=ends,
        columns={name: column[: len(ends)] for name, column in numbers.columns.items()},
        state=None,
        cameras={"top": Repeated(pictures, times)},
    )


class Repeated:
    """Pictures, again and again; each time brighter by one, so that no two chunks are equal."""

    def __init__(self, pictures: Pictures, times: int) -> None:
        self._pictures, self._times = pictures, times

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._times * len(self._pictures), *self._pictures.shape[1:])

    def __getitem__(self, steps: np.ndarray) -> Pictures:
        again, place = np.divmod(steps, len(self._pictures))
        return self._pictures[place] + again.astype(np.uint8)[..., None, None, None]


def resident_mib() -> float:
    """Return the memory of this process that is in use, without files in the page cache."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def windows_per_s(demos: Demonstrations, window: int) -> float:
    """Return random windows gathered per second of processor time, in batches."""
    windows = Windows(demos, window=window, chunk=CHUNK)
    order = np.random.default_rng(0).permutation(len(windows))
    began, done = time.process_time(), 0
    while time.process_time() - began < RUNS_S:
        first = done % (len(order) - BATCH)
        windows.gather(order[first : first + BATCH])
        done += BATCH
    return done / (time.process_time() - began)


def measured(name: str, pictures: Pictures, chunks: Sequence[int], folder: Path) -> Iterable[str]:
    """Yield one line per size of chunks."""
    size, times, lossy = pictures.shape[1], -(-FEW // len(pictures)), "av1" if name == "camera" else ""
    usual = shards.CHUNK_FRAMES, shards.CHUNK_BYTES
    for rows in (0, *chunks):
        shards.CHUNK_FRAMES, shards.CHUNK_BYTES = (rows, 2**40) if rows else usual
        path = folder / f"{name}-{size}-{rows}.zarr"
        began = time.process_time()
        store.write(path, demonstrations(pictures, times, "" if rows else lossy))
        written_s = time.process_time() - began
        shards.CHUNK_FRAMES, shards.CHUNK_BYTES = usual
        label = f"{rows}" if rows else f"{shards.Shards.of(Camera('top', size, size, lossy), 1).chunk_rows}, as written"
        demos = store.read(path, cache_bytes=0)
        steps = len(demos.action)
        stored = sum(file.stat().st_size for file in (path / "data/camera/top").iterdir()) / steps
        began = time.process_time()
        for first in range(0, steps, 100):
            demos.cameras["top"][np.arange(first, min(first + 100, steps))]
        read_s = time.process_time() - began
        one, five = (windows_per_s(demos, window) for window in (1, 5))
        yield (
            f"{name} {size:3d} px, chunks of {label:14s}: {stored:7,.0f} B/frame; frames/s: {steps / written_s:6,.0f} "
            f"written, {steps / read_s:6,.0f} read in order; random windows/s: {one:6,.0f} of 1, {five:6,.0f} of 5 "
            f"(wanted {WANTED[size]:,})"
        )


def grown(path: Path) -> str:
    """Return what a training's reading of all windows costs in memory; run in a process of its own."""
    demos = store.read(path)
    windows = Windows(demos, window=1, chunk=CHUNK)
    order = np.random.default_rng(0).permutation(len(windows))
    before = resident_mib()
    for first in range(0, len(order), BATCH):
        windows.gather(order[first : first + BATCH])
    pictures = np.prod(demos.cameras["top"].shape) / 2**20
    return f"{pictures:9,.0f} MiB of pictures: {before:.0f} MiB at the start, {resident_mib():.0f} MiB at the end"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    data = Path(os.environ.get("VQBET_DEMOS", "../shared/data"))
    parser.add_argument("--chunks", type=int, nargs="*", default=[1, 4, 10])
    parser.add_argument("--pusht", type=Path, default=data / "pusht/pusht_cchi_v7_replay.zarr")
    parser.add_argument("--video", type=Path)
    parser.add_argument("--grown", type=Path, help="a store: only the memory that reading it needs")
    asked = parser.parse_args()
    if asked.grown:
        print(grown(asked.grown))
        return
    drawn = pusht(asked.pusht)
    sources = {"drawn": drawn} | ({"camera": video(asked.video)} if asked.video else {})
    with tempfile.TemporaryDirectory() as folder:
        for name, pictures in sources.items():
            for size in WANTED:
                for line in measured(name, scaled(pictures[:FEW], size), asked.chunks, Path(folder)):
                    print(line, flush=True)
        for times in (1, GROWN):
            path = Path(folder) / f"grown-{times}.zarr"
            store.write(path, demonstrations(drawn[:STEPS], times))
            command = [sys.executable, "-m", "bench.images", "--grown", str(path)]
            print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="", flush=True)


if __name__ == "__main__":
    main()
