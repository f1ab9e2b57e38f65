"""Episodes on a Dask cluster of real processes: the records of one process, whatever happens to the workers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.postgres import free_port
from vqbet.contract import ConfigError, PipelineError, WorldError
from vqbet.demos import store
from vqbet.environment import processes
from vqbet.evaluation import cluster, pool
from vqbet.evaluation.pool import Assignment, RolloutPool
from vqbet.evaluation.rollout import UNPLANNED, Label
from vqbet.stages.players import StorePlayers
from vqbet.stages.progress import Advance, Watch
from vqbet.tasks.blockpush.oracle import demonstrations

pytestmark = pytest.mark.slow

TASK = "blockpush"
JOBS = [
    Assignment(Label(TASK, name, "", UNPLANNED, "a machine"), range(50, 80), film=[52]) for name in ("nearest", "noop")
]


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Dask's, terminated on exit."""
    with (folder / "dask.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=folder, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def worker(address: str, folder: Path, *, threads: int = 1) -> tuple[Any, ...]:
    own = ("--local-directory", str(folder), "--nthreads", str(threads))
    return (folder, "distributed.cli.dask_worker", address, "--no-dashboard", "--no-nanny", *own)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dask")


@pytest.fixture(scope="module")
def demos(folder: Path) -> Path:
    store.write(folder / f"{TASK}.zarr", demonstrations(6, 0))
    return folder / f"{TASK}.zarr"


@pytest.fixture(scope="module")
def scheduler(folder: Path) -> Iterator[str]:
    port = free_port()
    with started(
        folder, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"
    ):
        yield f"tcp://127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SHARD", 10)


def test_a_cluster_plays_what_one_process_plays_though_a_worker_is_killed(
    demos: Path, folder: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(processes.WORKERS, "1")
    with RolloutPool(StorePlayers(demos)) as place:
        here = place.play("here", JOBS, Watch().bar)
    monkeypatch.setenv(cluster.VARIABLE, scheduler)
    seen: list[tuple[int, int]] = []
    with ExitStack() as stack:
        stack.enter_context(started(*worker(scheduler, folder)))
        doomed = stack.enter_context(started(*worker(scheduler, folder)))

        @contextmanager
        def bar(_: str) -> Iterator[Advance]:
            def advance(done: int, total: int, _numbers: object) -> None:
                if not seen:
                    doomed.send_signal(signal.SIGKILL)
                seen.append((done, total))

            yield advance

        with RolloutPool(StorePlayers(demos)) as place:
            there = place.play("there", JOBS, bar)
            again = place.play("again", JOBS[:1], Watch().bar)
    assert doomed.returncode == -signal.SIGKILL
    assert seen[-1] == (60, 60)
    for one, other in zip([*here, here[0]], [*there, *again], strict=True):
        assert one.records == other.records
        assert all(np.array_equal(*pair) for pair in zip(one.paths, other.paths, strict=True))
        assert np.array_equal(one.films[2].frames, other.films[2].frames)


def test_what_is_wrong_on_a_worker_is_said_here(
    demos: Path, folder: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cluster.VARIABLE, scheduler)
    unknown = Assignment(Label("nowhere", "noop", "", UNPLANNED, "a machine"), range(3))
    with started(*worker(scheduler, folder)), RolloutPool(StorePlayers(demos)) as place:
        with pytest.raises(WorldError, match="nowhere"):
            place.play("an unknown world", [unknown], Watch().bar)
        other = {**cluster.facts(), "code": "0" * 12}
        monkeypatch.setattr(cluster, "facts", lambda: other)
        with pytest.raises(PipelineError, match=r"has the code .*, and this process 0000"):
            place.play("code of another commit", JOBS, Watch().bar)


def test_a_worker_with_two_threads_is_refused(
    demos: Path, folder: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cluster.VARIABLE, scheduler)
    with (
        started(*worker(scheduler, folder, threads=2)),
        RolloutPool(StorePlayers(demos)) as place,
        pytest.raises(PipelineError, match="2 threads; start it with --nthreads 1"),
    ):
        place.play("two shards in one process", JOBS, Watch().bar)


def test_a_cluster_of_a_file_is_started_and_ended(demos: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "cluster.yaml"
    file.write_text(
        "cluster: distributed:LocalCluster\nworkers: 1\n"
        "options: {n_workers: 0, threads_per_worker: 1, dashboard_address: null}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv(cluster.VARIABLE, str(file))
    with RolloutPool(StorePlayers(demos)) as place:
        (played,) = place.play("there", JOBS[1:], Watch().bar)
    assert [record.seed for record in played.records] == list(range(50, 80))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers: 2\n", "expected `cluster`, and perhaps `options` and `workers`, got workers"),
        ("- tcp://here:1\n", "got list"),
        ("cluster: distributed:LocalCluster\nworker: 2\n", "got cluster, worker"),
        ("cluster: no_such_package:Cluster\n", "cannot be imported"),
        ("cluster: distributed:NoSuchCluster\n", "cannot be imported"),
        ("cluster: distributed:LocalCluster\noptions: {colour: red}\n", "does not start with these options"),
        ("cluster: [\n", "or a YAML file, got"),
        (None, "or a YAML file, got"),
    ],
)
def test_a_file_that_names_no_cluster_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "cluster.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        cluster.Cluster(str(file))


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.5)
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(PipelineError, match=f"no scheduler with a worker answered at '{address}' within"):
        cluster.Cluster(address)
