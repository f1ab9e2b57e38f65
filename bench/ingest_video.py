"""Ingest of 30 Hz video of 480x640 from two cameras: real-time factor, peak memory. python -m bench.ingest_video <g1>

The humanoid's four videos, each as the film of two cameras, are repeated until there are MINUTES of them.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from vqbet.contract import Camera, Channel, Spec
from vqbet.demos import sources, store
from vqbet.demos.sources import declared
from vqbet.demos.sources.declared import Declaration, SourceFrames
from vqbet.demos.store.staging import Staging

MINUTES = 2.2
FIELD = "observation.images.cam_high"
SIZE = (96, 128)  # px, as `vqbet new` chooses


def main(folder: Path) -> None:
    source = sources.opened(folder)
    cameras = tuple(Camera(name, *SIZE, "av1") for name in ("left", "right"))
    whole = [number for number, one in enumerate(source.episodes) if not one.missing]
    hz = float(source.rate_hz or 0)
    channels = tuple(Channel(f"joint_{number}", "rad", -10.0, 10.0) for number in range(26))
    spec = Spec("g1", channels, channels, hz, "absolute", "", cameras)
    wanted = Declaration(
        spec, {"observation.state": 26}, {"action": 26}, {one.name: FIELD for one in cameras}, leave_out=True
    )
    demos = declared.demonstrations(source, wanted)
    times = int(np.ceil(MINUTES * 60 * hz / len(demos.action)))
    ends = np.concatenate([demos.episode_ends + turn * len(demos.action) for turn in range(times)])
    more = replace(
        demos,
        observation=np.tile(demos.observation, (times, 1)),
        action=np.tile(demos.action, (times, 1)),
        time_s=np.tile(demos.time_s, times),
        episode_ends=ends,
        columns={name: np.tile(column, times) for name, column in demos.columns.items()},
        cameras={one.name: SourceFrames(source, FIELD, one, whole * times) for one in cameras},
    )
    seconds = len(more.action) / hz
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "g1.zarr"
        started, used = time.monotonic(), time.process_time()
        store.write(path, more, staging=Staging(Path(scratch) / "staged", "bench", path))
        took, cpu = time.monotonic() - started, time.process_time() - used
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{seconds:.0f} s of two cameras at {hz:g} Hz, 480x640 to {SIZE}: {took:.1f} s, {cpu:.1f} s of CPU")
    print(f"real time / {seconds / took:.1f}; of the CPU time on two cores / {2 * seconds / cpu:.1f}")
    print(f"peak memory {peak:.2f} GiB; store {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/g1_bottle"))
