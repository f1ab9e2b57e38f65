"""Episodes played on all cores in shards of a fixed size, with the same records for any number of cores.

Batch size changes floating-point rounding, and contact dynamics turn a one-bit difference into a different episode; so
the assignment alone determines the batches. A worker receives names and seeds, never policies: its `Players` read the
policies and check their digests.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from vqbet.contract import Advance, PipelineError
from vqbet.environment import processes
from vqbet.evaluation import cluster, rollout
from vqbet.evaluation.plan import Slice
from vqbet.evaluation.rollout import Label, Play

SHARD = 100  # episodes that one process plays together; smaller shards slow vectorised worlds more than they spread
REPORT_S = 0.2
LOOK_S = 2.0  # of the first shard, before its speed is trusted
START_S = 4.0  # for a new process to import torch and read policy and world
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Report = Callable[[int, int], None]  # (control steps done, maximum)
Bar = Callable[[str], AbstractContextManager[Advance]]  # from a title


@dataclass(frozen=True, slots=True)
class Assignment:
    """One policy in one world under one condition: an episode for each seed.

    bundle: folder of the policy with the label's digest; None for the baseline that the label names. film: seeds to
    film.
    """

    label: Label
    seeds: Sequence[int]
    bundle: Path | None = None
    within: Slice | None = None
    film: Sequence[int] = ()

    def shards(self) -> list[Assignment]:
        """Return parts of SHARD seeds each, in order, that are played together."""
        parts = [self.seeds[first : first + SHARD] for first in range(0, len(self.seeds), SHARD)]
        return [replace(self, seeds=part, film=[seed for seed in self.film if seed in part]) for part in parts]


class Players(Protocol):
    """Reads policies and worlds, and plays. Pickled into every process, without the policies and worlds it has read."""

    def play(self, assignment: Assignment, report: Report) -> Play:
        """Play all episodes of the assignment together. Raises VqbetError where policy or world is unavailable."""


class RolloutPool:
    """Context of worker processes, started once enough episodes remain for them to save time, and ended on exit.

    Their number is $VQBET_WORKERS, or else the number of cores available to this process. Where $VQBET_DASK names a
    cluster, all episodes are played there.
    """

    def __init__(self, players: Players) -> None:
        self._workers = processes.workers()
        self._here = players
        self._pool: _Workers | cluster.DaskWorkers | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.end()

    def play(self, title: str, assignments: Sequence[Assignment], bar: Bar) -> list[Play]:
        """Play the episodes of all assignments, under one bar. Raises as the players, and as `rollout.play`."""
        parts = [assignment.shards() for assignment in assignments]
        shards = [shard for part in parts for shard in part]
        began = time.perf_counter()
        if self._pool is None and (named := os.environ.get(cluster.VARIABLE)):
            self._pool = cluster.DaskWorkers(named, self._here)
        with bar(title) as advance:
            progress = _Progress(advance, [len(shard.seeds) for shard in shards])
            played = [] if self._pool else self._play_here(shards, progress)
            if len(played) < len(shards):
                self._pool = self._pool or _Workers(self._here, self._workers)
                played += self._pool.play(shards[len(played) :], progress, len(played))
        seconds, found = time.perf_counter() - began, iter(played)
        return [rollout.join(list(islice(found, len(part))), seconds) for part in parts]

    def _play_here(self, shards: Sequence[Assignment], progress: _Progress) -> list[Play]:
        """Play shards here until their speed shows that processes save time; the shard in progress is discarded."""
        played: list[Play] = []
        began = time.perf_counter()

        def gains() -> bool:
            left = sum(len(shard.seeds) for shard in shards[len(played) :])
            side_by_side = min(self._workers, len(shards) - len(played))
            episode_s = (time.perf_counter() - began) / progress.done
            return episode_s * (progress.total - progress.done) > START_S + episode_s * left / side_by_side

        def report(done: int, most: int) -> None:
            progress.at(len(played), done, most)
            if time.perf_counter() - began > LOOK_S and gains():
                raise _Stopped

        while len(played) < len(shards) and not (played and gains()):
            try:
                played.append(self._here.play(shards[len(played)], report))
            except _Stopped:
                break
        return played


class _Progress:
    """Episodes done, as fractions of concurrent shards. A restarted shard does not move the bar back."""

    def __init__(self, advance: Advance, sizes: Sequence[int]) -> None:
        self.total = sum(sizes)
        self._advance, self._sizes, self._done, self._shown = advance, sizes, [0.0] * len(sizes), 0

    @property
    def done(self) -> float:
        return sum(self._done)

    def at(self, shard: int, done: int, most: int) -> None:
        self._done[shard] = self._sizes[shard] * done / most
        self._shown = max(self._shown, round(self.done))
        self._advance(self._shown, self.total, {})


class _Workers:
    """Processes that play shards. Spawned, because a fork would copy the locks of torch's threads."""

    def __init__(self, players: Players, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._count = count
        self._reports, self._stop = context.Queue(), context.Event()
        given = (os.getpid(), players, self._reports, self._stop)
        self._processes = ProcessPoolExecutor(count, mp_context=context, initializer=_enter, initargs=given)

    def play(self, shards: Sequence[Assignment], progress: _Progress, first: int) -> list[Play]:
        """Play shards; `first` is the number of the first one in the bar."""
        with _environment(ONE_THREAD):  # read by a child's BLAS on import
            waiting = {self._processes.submit(_play, at, shard): at for at, shard in enumerate(shards, first)}
        found: dict[int, Play] = {}
        while waiting:
            done, _ = wait(waiting, timeout=REPORT_S)
            while not self._reports.empty():
                progress.at(*self._reports.get())
            for future in done:
                at = waiting.pop(future)
                try:
                    found[at] = future.result()
                except BrokenProcessPool as error:
                    raise PipelineError(
                        "a process that played episodes was ended from outside, perhaps for want of memory; "
                        f"set {processes.WORKERS} to fewer than {self._count}"
                    ) from error
                progress.at(at, 1, 1)
        return [found[at] for at in range(first, first + len(shards))]

    def end(self) -> None:
        self._stop.set()
        self._processes.shutdown(cancel_futures=True)


class _Stopped(Exception):
    """Ends a shard whose result is no longer needed."""


def _enter(parent: int, players: Players, reports: Any, stop: Any) -> None:
    """Initialise a new process: ignore Ctrl-C, which the parent handles, and die with the parent."""
    global _players, _reports, _stop
    processes.die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _players, _reports, _stop = players, reports, stop


_players: Players
_reports: Any
_stop: Any


def _play(at: int, shard: Assignment) -> Play:
    due = time.monotonic()

    def report(done: int, most: int) -> None:
        nonlocal due
        if _stop.is_set():
            raise _Stopped
        if time.monotonic() >= due:
            due = time.monotonic() + REPORT_S
            _reports.put((at, done, most))

    return _players.play(shard, report)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
