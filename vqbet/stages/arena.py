"""Play many episodes on all cores, in shards of a fixed size: the records are the same however many cores there are.

How many episodes a policy is asked about at once decides how its numbers are rounded, and contact makes another episode
of a last bit; so who plays together follows from the job alone. A worker is given names and seeds, never objects: it
reads policy and demonstrations itself, and checks their digests.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vqbet import bundle, environment
from vqbet.contract import Demonstrations, PipelineError, Policy
from vqbet.demos import store
from vqbet.environment import processes
from vqbet.evaluation import rollout
from vqbet.evaluation.plan import Slice
from vqbet.evaluation.rollout import Label, Play
from vqbet.policies import loading
from vqbet.stages import worlds
from vqbet.stages.progress import Advance, Watch

SHARD = 100  # episodes that one process plays together; fewer cost the vectorised worlds more than they spread
REPORT_S = 0.2
LOOK_S = 2.0  # of the first shard, after which its speed is believed
START_S = 4.0  # until a new process has imported torch and read what it plays with
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Report = Callable[[int, int], None]  # control steps done, of at most


@dataclass(frozen=True, slots=True)
class Job:
    """One policy in one world under one condition: an episode for each seed.

    bundle: where the policy is, its digest the label's; None for the baseline that the label names. film: which of the
    seeds to film.
    """

    label: Label
    seeds: Sequence[int]
    bundle: Path | None = None
    within: Slice | None = None
    film: Sequence[int] = ()

    def shards(self) -> list[Job]:
        """What is played together: SHARD seeds each, in their order."""
        parts = [self.seeds[first : first + SHARD] for first in range(0, len(self.seeds), SHARD)]
        return [replace(self, seeds=part, film=[seed for seed in self.film if seed in part]) for part in parts]


@dataclass(slots=True)
class _Players:
    """What a process has read: the demonstrations, and every policy it has played."""

    store: Path
    _demos: Demonstrations | None = None
    _policies: dict[tuple[Path | None, str, str], Policy] = field(default_factory=dict)

    def play(self, job: Job, report: Report) -> Play:
        env = worlds.make(job.label.world, self.demos)
        label = replace(job.label, machine=environment.machine())  # of this process, wherever it was started from
        if job.within is not None:
            noise = {"observation_noise": job.within.observation_noise, "action_noise": job.within.action_noise}
            env, label = worlds.disturbed(env, self.demos, **noise), replace(label, slice=job.within.name)
        rows = [list(job.seeds).index(seed) for seed in job.film]
        with processes.one_thread():
            return rollout.play(env, self._policy(job), job.seeds, label, progress=report, film=rows)

    @property
    def demos(self) -> Demonstrations:
        if self._demos is None:
            self._demos = store.read(self.store)
        return self._demos

    def _policy(self, job: Job) -> Policy:
        key = (job.bundle, job.label.policy, job.label.digest)
        if key not in self._policies:
            self._policies[key] = self._read(job)
        return self._policies[key]

    def _read(self, job: Job) -> Policy:
        if job.bundle is None:
            return worlds.baseline(job.label.policy, self.demos)
        policy, packed = loading.load(job.bundle, job.label.digest)
        bundle.expect(packed, self.demos.spec)
        return policy


class Arena:
    """A context: its processes are started when there is so much left to play that they gain time, and end with it.

    How many there are: $VQBET_WORKERS, else one for each core this process may use.
    """

    def __init__(self, demonstrations: Path) -> None:
        self._store = demonstrations
        self._workers = processes.workers()
        self._here = _Players(demonstrations)
        self._pool: _Pool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.end()

    def play(self, title: str, jobs: Sequence[Job], watch: Watch) -> list[Play]:
        """Every job's episodes, under one bar. Raises WorldError as `rollout.play`, BundleError as `playable.load`."""
        parts = [job.shards() for job in jobs]
        shards = [shard for part in parts for shard in part]
        began = time.perf_counter()
        with watch.bar(title) as advance:
            progress = _Progress(advance, [len(shard.seeds) for shard in shards])
            played = [] if self._pool else self._play_here(shards, progress)
            if len(played) < len(shards):
                self._pool = self._pool or _Pool(self._store, self._workers)
                played += self._pool.play(shards[len(played) :], progress, len(played))
        seconds, found = time.perf_counter() - began, iter(played)
        return [rollout.join(list(islice(found, len(part))), seconds) for part in parts]

    def _play_here(self, shards: Sequence[Job], progress: _Progress) -> list[Play]:
        """The shards up to the one whose speed shows that processes gain time; what was played of that one is lost."""
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
    """Episodes done, as fractions of shards that play at the same time. A shard that begins again moves no bar back."""

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


class _Pool:
    """Processes that play shards. Spawned, for a fork would copy the locks of torch's threads."""

    def __init__(self, demonstrations: Path, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._count = count
        self._reports, self._stop = context.Queue(), context.Event()
        given = (os.getpid(), demonstrations, self._reports, self._stop)
        self._processes = ProcessPoolExecutor(count, mp_context=context, initializer=_enter, initargs=given)

    def play(self, shards: Sequence[Job], progress: _Progress, first: int) -> list[Play]:
        """`first`: the number of the first shard in the bar."""
        with _environment(ONE_THREAD):  # what a child's BLAS reads while it is imported
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
    """Nobody waits any more for what is being played of this shard."""


def _enter(parent: int, demonstrations: Path, reports: Any, stop: Any) -> None:
    """In a new process: Ctrl-C is the parent's to answer, and the parent's death is ours."""
    global _players, _reports, _stop
    processes.die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _players, _reports, _stop = _Players(demonstrations), reports, stop


_players: _Players
_reports: Any
_stop: Any


def _play(at: int, shard: Job) -> Play:
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
