"""Episodes on all cores: the same records as on one, and nothing left behind when it goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support import untrained
from vqbet.contract import BundleError, PipelineError, WorldError
from vqbet.demos import store
from vqbet.environment import processes
from vqbet.evaluation import pool, rollout
from vqbet.evaluation.plan import Slice
from vqbet.evaluation.pool import Assignment, RolloutPool
from vqbet.evaluation.rollout import UNPLANNED, Label
from vqbet.stages.players import StorePlayers
from vqbet.stages.progress import Advance, Watch
from vqbet.tasks.blockpush.oracle import demonstrations

pytestmark = pytest.mark.slow

TASK = "blockpush"


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demos") / f"{TASK}.zarr"
    store.write(folder, demonstrations(6, 0))
    return folder


@pytest.fixture(scope="module")
def policy(demos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An untrained network, wide enough that a matrix product is rounded by how many episodes it is made for."""
    folder = tmp_path_factory.mktemp("policy") / "policy"
    _, digest = untrained.written(folder, store.read(demos), window=1, chunk=2, head_hidden=256)
    return folder, digest


def label(policy: str, digest: str = "", world: str = TASK) -> Label:
    return Label(world, policy, digest, UNPLANNED, "a machine")


def jobs(policy: tuple[Path, str]) -> list[Assignment]:
    folder, digest = policy
    noisy = Slice("noisy", 0.5, observation_noise=0.05, action_noise=0.05)
    return [
        Assignment(label("candidate", digest), range(50, 65), folder, film=[62]),
        Assignment(label("candidate", digest), range(80, 88), folder, within=noisy),
        Assignment(label("nearest"), range(50, 62)),
    ]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SHARD", 10)
    monkeypatch.setattr(pool, "START_S", 0.0)


@pytest.mark.usefixtures("small_shards")
def test_two_processes_play_what_one_plays(
    demos: Path, policy: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, ended_here, play = [], [0], StorePlayers.play

    def counted(own: StorePlayers, job: Assignment, report: pool.Report) -> rollout.Play:
        played = play(own, job, report)
        ended_here[-1] += 1
        return played

    monkeypatch.setattr(StorePlayers, "play", counted)
    for workers, look_s in (("1", 0.0), ("2", pool.LOOK_S), ("2", 0.0)):
        monkeypatch.setenv(processes.WORKERS, workers)
        monkeypatch.setattr(pool, "LOOK_S", look_s)
        with RolloutPool(StorePlayers(demos)) as place:
            found.append(place.play("all", jobs(policy), Watch().bar))
        ended_here.append(0)
    assert (ended_here[0], ended_here[2]) == (5, 0)  # the last: its first shard began here and was stopped
    for one, two, at_once in zip(*found, strict=True):
        assert one.records == two.records == at_once.records
        assert all(np.array_equal(*pair) for pair in zip(two.paths, one.paths, strict=True))
        assert two.films.keys() == one.films.keys()
        assert all(np.array_equal(two.films[row].frames, film.frames) for row, film in one.films.items())
    candidate, noisy, _ = found[1]
    assert [record.seed for record in candidate.records] == list(range(50, 65))
    assert sorted(candidate.films) == [12]
    assert candidate.timing.steps == sum(record.steps for record in candidate.records)
    assert {record.slice for record in noisy.records} == {"noisy"}


@pytest.mark.usefixtures("small_shards")
def test_the_bar_counts_episodes_up_to_all_of_them(
    demos: Path, policy: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first shard is slow, is stopped, and begins again in another process."""
    monkeypatch.setenv(processes.WORKERS, "2")
    monkeypatch.setattr(pool, "LOOK_S", 0.0)
    seen: list[tuple[int, int]] = []

    @contextmanager
    def bar(_: str) -> Iterator[Advance]:
        yield lambda done, total, _numbers: seen.append((done, total))

    with RolloutPool(StorePlayers(demos)) as place:
        place.play("bar", jobs(policy), bar)
    assert seen[-1] == (35, 35)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_little_is_played_without_processes(
    demos: Path, policy: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "SHARD", 2)
    monkeypatch.setenv(processes.WORKERS, "2")
    job = Assignment(label("nearest"), range(50, 56))
    with RolloutPool(StorePlayers(demos)) as place:
        place.play("little", [job], Watch().bar)
        assert workers_of(psutil.Process()) == []
        monkeypatch.setattr(pool, "START_S", 0.0)
        place.play("the same, were they there at once", [job], Watch().bar)
        assert len(workers_of(psutil.Process())) == 2


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_is_wrong_is_said_in_the_same_words(
    demos: Path, policy: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv(processes.WORKERS, workers)
    with RolloutPool(StorePlayers(demos)) as place:
        place.play("good", [Assignment(label("nearest"), range(50, 80))], Watch().bar)
        assert bool(workers_of(psutil.Process())) == (workers == "2")
        with pytest.raises(BundleError, match="digest"):
            place.play("other", [Assignment(label("candidate", "0" * 64), range(50, 62), policy[0])], Watch().bar)
        with pytest.raises(WorldError, match="no world 'atlantis'"):
            place.play("nowhere", [Assignment(label("noop", world="atlantis"), range(50, 62))], Watch().bar)


@pytest.mark.usefixtures("small_shards")
def test_a_process_that_is_killed_is_said(
    demos: Path, policy: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(processes.WORKERS, "2")
    with RolloutPool(StorePlayers(demos)) as place:
        place.play("first", jobs(policy), Watch().bar)
        before = workers_of(psutil.Process())
        assert len(before) == 2
        before[0].kill()
        with pytest.raises(PipelineError, match="VQBET_WORKERS to fewer than 2"):
            place.play("second", jobs(policy), Watch().bar)
    assert all(ended(worker) for worker in before)


def test_none_outlives_a_parent_that_is_killed(demos: Path, policy: tuple[Path, str]) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from vqbet.evaluation.rollout import Label\n"
        "from vqbet.evaluation.pool import Assignment, RolloutPool\n"
        "from vqbet.stages.players import StorePlayers\n"
        "from vqbet.stages.progress import Watch\n"
        "if __name__ == '__main__':\n"
        "    label = Label('blockpush', 'candidate', sys.argv[3], '0' * 64, '')\n"
        "    with RolloutPool(StorePlayers(Path(sys.argv[1]))) as place:\n"
        "        place.play('long', [Assignment(label, range(100000), Path(sys.argv[2]))], Watch().bar)\n"
    )
    file = demos.parent / "play.py"
    file.write_text(script)
    command = [sys.executable, str(file), str(demos), str(policy[0]), policy[1]]
    environment = {**os.environ, processes.WORKERS: "2", "PYTHONPATH": str(Path.cwd())}
    parent = subprocess.Popen(command, env=environment)
    try:
        found = waited(lambda: len(workers_of(psutil.Process(parent.pid))) == 2)
        assert found
        found = workers_of(psutil.Process(parent.pid))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert waited(lambda: all(ended(worker) for worker in found))


@pytest.mark.parametrize("value", ["0", "-1", "two", "", "1025"])
def test_an_odd_number_of_workers_is_refused(value: str, demos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(processes.WORKERS, value)
    with pytest.raises(PipelineError, match=f"{processes.WORKERS}: expected a number from 1 to 1024, got {value!r}"):
        RolloutPool(StorePlayers(demos))


def workers_of(parent: psutil.Process) -> list[psutil.Process]:
    """The children that play: spawned, unlike the one that counts shared resources."""
    return [child for child in parent.children() if any("spawn_main" in word for word in child.cmdline())]


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def waited(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.1)
    return False
