"""Campaign: a recorder is killed with SIGKILL at random moments, again and again, over one folder of recordings.

    python -m tests.support.killed_recorder <folder> <kills>

Prints as JSON: kills, finished recordings, broken-off ones, and how many kills fell into `finish`. Ends with an error
where a finished recording is missing, damaged or altered, or where the recordings do not make a store.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from tests.support.recording import handshake, numbers, record
from vqbet.demos import store
from vqbet.demos.importers import recordings as importer
from vqbet.demos.importers.recordings import Accepted
from vqbet.serving import recordings
from vqbet.serving.recorder import Recorder

MOST_S = 0.3  # of a recorder's life


def steps_of(seed: int) -> int:
    return 3 + seed % 40


def child(folder: Path, first_seed: int, told: int) -> int:
    """Fork a process that records episodes until it is killed and tells the seed of each one that is finished."""
    pid = os.fork()
    if pid:
        return pid
    try:
        recorder = Recorder(folder, handshake(), robot="robot-3")
        for seed in range(first_seed, first_seed + 10_000):
            record(recorder, seed=seed, steps=steps_of(seed))
            os.write(told, seed.to_bytes(8, "little"))
    finally:
        os._exit(99)


def campaign(folder: Path, kills: int, seed: int = 0) -> dict[str, int]:
    """Kill recorders and check after each that everything finished before is there. Raises AssertionError."""
    chance, promised, checked, first = random.Random(seed), set[int](), dict[int, int](), 0
    for _ in range(kills):
        reader, writer = os.pipe()
        pid = child(folder, first, writer)
        os.close(writer)
        time.sleep(chance.uniform(0, MOST_S))
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        with os.fdopen(reader, "rb") as pipe:
            content = pipe.read()
        promised |= {int.from_bytes(content[place : place + 8], "little") for place in range(0, len(content), 8)}
        for number in recordings.listing(folder).finished:
            if number not in checked:
                checked[number] = whole(folder, number)
        assert promised <= set(checked.values()), "an episode whose finish returned is lost"
        first = max([first, *checked.values()]) + 1000  # seeds do not repeat
    there = recordings.listing(folder)
    assert set(there.finished) == checked.keys()
    assert not there.running
    for number in there.finished:
        whole(folder, number)
    ingested(folder, there.finished)
    return {
        "kills": kills,
        "finished": len(there.finished),
        "broken_off": len(there.interrupted),
        "in_finish": sum((folder / name / recordings.MANIFEST).exists() for name in there.interrupted),
    }


def whole(folder: Path, number: int) -> int:
    """Check every byte and number of a recording, and return its seed."""
    recording = recordings.read(folder, number)
    recording.verify()
    seed = recording.facts.seed
    assert recording.steps == steps_of(seed)
    for name, wanted in numbers(seed, recording.steps, recording.facts.spec).items():
        np.testing.assert_array_equal(recording.array(name), wanted)
    return seed


def ingested(folder: Path, finished: tuple[int, ...]) -> None:
    accepted = [Accepted(recordings.read(folder, number), success=True) for number in finished]
    demos = importer.extended(None, accepted)
    store.write(folder.parent / "synthetic.zarr", demos)
    np.testing.assert_array_equal(store.read(folder.parent / "synthetic.zarr").action, demos.action)
    assert len(demos.episode_ends) == len(finished)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(campaign(Path(sys.argv[1]), int(sys.argv[2]))) + "\n")
