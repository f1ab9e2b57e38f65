"""Pictures from DVC's remote while they are read: memory when they grow 20 times, windows per second beside local ones.

    OMP_NUM_THREADS=1 python -m bench.streaming [--pusht FOLDER] [--windows 20000]

A store of Push-T's own pictures (96 x 96), once and 20 times, is pushed to an S3 server of this machine (moto, in a
process of its own). Then windows are read in random order, as a training reads them: from data/, and in a clone that
has data.dvc alone. "opened" is the resident size, children included, before the first picture, "most" the largest
afterwards; "all here" the time until every file of pictures has come.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import psutil

from bench.images import BATCH, CHUNK, GROWN, STEPS, demonstrations, pusht
from vqbet import versions
from vqbet.demos import store
from vqbet.demos.store import manifest
from vqbet.demos.windows import Windows
from vqbet.stages import streaming
from vqbet.stages.paths import Paths

ROOT = Path(__file__).resolve().parents[1]
TASK, BUCKET = "synthetic", "data"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3() -> Iterator[str]:
    """Run an S3 server with an empty bucket; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{(port := free.getsockname()[1])}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", f"{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            try:
                urlopen(Request(f"{address}/{BUCKET}", method="PUT")).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def project(root: Path, address: str) -> Path:
    """Return a new repository whose remote is in the bucket."""
    (root / ".dvc").mkdir(parents=True)
    (root / ".vqbet").mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    for name in (".dvc/.gitignore", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    (root / ".dvc" / "config").write_text(
        f"[core]\n    remote = s3\n    site_cache_dir = {root}/.vqbet/dvc-site\n"
        f"['remote \"s3\"']\n    url = s3://{BUCKET}/{root.parent.name}\n    endpointurl = {address}\n"
    )
    return root


def resident_mib() -> float:
    """Return the memory of this process and its children that is in use."""
    me = psutil.Process()
    return sum(one.memory_info().rss for one in (me, *me.children(recursive=True))) / 2**20


def read(root: Path, count: int) -> str:
    """Read random windows of a project; return a line of what that took."""
    paths = streaming.of(Paths(root, TASK))
    demos = store.read(paths.store, fetch=paths.fetch)
    files = sum(manifest.pictures(name) for name in manifest.read(paths.store).files)
    windows = Windows(demos, window=1, chunk=CHUNK)
    order = np.random.default_rng(0).permutation(len(windows))[:count]
    if paths.fetch is not None:
        paths.fetch(manifest.NAME)  # opens the remote
    opened, most, arrived = resident_mib(), 0.0, 0.0
    touched, settled = set[int](), len(order)
    rows = demos.cameras["top"]._layout.shard_rows  # type: ignore[attr-defined]
    began = time.monotonic()
    for first in range(0, len(order), BATCH):
        chosen = order[first : first + BATCH]
        windows.gather(chosen)
        touched |= set((windows.steps[chosen] // rows).tolist())
        most = max(most, resident_mib())
        if len(touched) == files and not arrived:
            arrived, settled = time.monotonic() - began, first + BATCH
    seconds = time.monotonic() - began
    rate = (len(order) - settled) / (seconds - arrived)
    pictures, how = np.prod(demos.cameras["top"].shape) / 2**20, "streamed" if paths.fetch else "local"
    return (
        f"{how:>8} {pictures:6,.0f} MiB of pictures, {files:3d} files: {opened:4.0f} MiB "
        f"opened, {most:4.0f} most; all here after {settled:5,d} windows, {arrived:5.1f} s; then {rate:6,.0f} windows/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("VQBET_DEMOS", "../shared/data"))
    parser.add_argument("--pusht", type=Path, default=data / "pusht/pusht_cchi_v7_replay.zarr")
    parser.add_argument("--windows", type=int, default=20_000)
    parser.add_argument("--read", type=Path, help="a project: only what reading it needs")
    asked = parser.parse_args()
    if asked.read:
        print(read(asked.read, asked.windows))
        return
    os.environ |= {**CREDENTIALS, streaming.VARIABLE: "1"}
    os.environ.pop("DVC_SITE_CACHE_DIR", None)
    pictures = pusht(asked.pusht)[:STEPS]
    with tempfile.TemporaryDirectory() as folder, s3() as address:
        for times in (1, GROWN):
            whole = project(Path(folder) / f"{times}" / "whole", address)
            store.write(Paths(whole, TASK).store, demonstrations(pictures, times))
            versions.add(whole)
            versions.push(whole)
            bare = project(Path(folder) / f"{times}" / "bare", address)
            shutil.copy(whole / "data.dvc", bare / "data.dvc")
            for root in (whole, bare):
                words = ["-m", "bench.streaming", "--windows", f"{asked.windows}", "--read", str(root)]
                done = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
                print(done.stdout, end="", flush=True)


if __name__ == "__main__":
    main()
