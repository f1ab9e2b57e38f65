"""Work spread over a Dask cluster, and the shards of `pool` played there, with the same records.

$VQBET_DASK names the cluster: the address of a scheduler (tcp://host:8786, or tls:// with certificates as Dask's own
settings name them), "local", or a YAML file with `cluster`, the class to start (such as dask_jobqueue:SLURMCluster,
dask.distributed:SSHCluster or dask_kubernetes.operator:KubeCluster), `options` for it and the number of `workers`.
Workers need this project's folder at the same path, the same code, and one thread each. Tasks and results travel as
Dask sends them, pickled: a scheduler has to be as trusted as this process.
"""

from __future__ import annotations

import hashlib
import importlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vqbet import environment
from vqbet.contract import ConfigError, PipelineError
from vqbet.environment import processes

if TYPE_CHECKING:
    from vqbet.evaluation.pool import Assignment, Players, _Progress
    from vqbet.evaluation.rollout import Play

VARIABLE = "VQBET_DASK"
PACKAGE = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0  # for the scheduler, and for its first worker
FIELDS = {"cluster", "options", "workers"}


class Cluster:
    """Connection to the cluster that $VQBET_DASK names; one that it started ends with it.

    Raises ConfigError where the variable names none, PipelineError where nobody answers.
    """

    def __init__(self, named: str) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise ConfigError(
                f"{VARIABLE} is {named!r}, and Dask is not installed: pip install 'vqbet[dask]'"
            ) from error
        self.named, self._own = named, _started(named)
        try:
            self.client = Client(self._own or named, timeout=PATIENCE_S, set_as_default=False)
            self.client.wait_for_workers(1, timeout=PATIENCE_S)
        except (OSError, TimeoutError, ValueError) as error:
            self.end()
            raise PipelineError(
                f"{VARIABLE}: no scheduler with a worker answered at {named!r} within {PATIENCE_S:.0f} s ({error}); "
                f"start both, or unset {VARIABLE} to use the processes of this machine"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def map(self, work: Callable[..., Any], arguments: Sequence[Sequence[Any]]) -> Iterator[tuple[int, Any]]:
        """Yield (position, result) of `work(*arguments[position])` as they are done, on whichever worker is free.

        Work of a worker that ends is given to another. Raises what `work` raises, and PipelineError where it ended too
        many workers.
        """
        from distributed import KilledWorker, as_completed
        from distributed.client import FutureCancelledError

        expected = facts()
        futures = {
            self.client.submit(_checked, expected, work, *each, key=f"vqbet-{uuid.uuid4().hex}", pure=False): at
            for at, each in enumerate(arguments)
        }
        try:
            for future in as_completed(futures, loop=self.client.loop):
                yield futures[future], future.result()
        except (KilledWorker, FutureCancelledError) as error:
            raise PipelineError(
                f"{VARIABLE}: workers ended again and again under the same work, perhaps for want of memory: {error}"
            ) from error
        finally:
            self.client.cancel(list(futures))

    def end(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        if self._own is not None:
            self._own.close()


class DaskWorkers:
    """Workers of a cluster that play shards; the same interface as the processes of `pool`."""

    def __init__(self, named: str, players: Players) -> None:
        self._cluster, self._players, self._session = Cluster(named), players, uuid.uuid4().hex

    def play(self, shards: Sequence[Assignment], progress: _Progress, first: int) -> list[Play]:
        """Play shards; `first` is the number of the first one in the bar."""
        found: dict[int, Play] = {}
        for at, played in self._cluster.map(_play, [(self._session, self._players, shard) for shard in shards]):
            found[at] = played
            progress.at(first + at, 1, 1)
        return [found[at] for at in range(len(shards))]

    def end(self) -> None:
        self._cluster.end()


@cache
def facts() -> dict[str, str]:
    """Return what has to be equal here and on a worker: the processor, the libraries, and the sources' sha256."""
    code = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        code.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes())
    return {"machine": environment.machine(), "code": code.hexdigest()[:12]}


def _started(named: str) -> Any:
    """Return the cluster that is to be started; None for one that runs already."""
    if "://" in named:
        return None
    if named == "local":
        from distributed import LocalCluster

        return LocalCluster(n_workers=processes.workers(), threads_per_worker=1, dashboard_address=None)
    chosen = _read(Path(named))
    module, _, name = str(chosen["cluster"]).partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{named}: cluster {chosen['cluster']!r} cannot be imported: {error}") from error
    options = chosen.get("options") or {}
    try:
        started = kind(**options)
        if "workers" in chosen:
            started.scale(int(chosen["workers"]))
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise ConfigError(f"{named}: {chosen['cluster']} does not start with these options: {error}") from error
    return started


def _read(path: Path) -> Mapping[str, Any]:
    from ruamel.yaml import YAML, YAMLError

    try:
        found = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{VARIABLE}: expected tcp://host:port, `local` or a YAML file, got {str(path)!r} ({error})"
        ) from error
    if not isinstance(found, dict) or "cluster" not in found or set(found) - FIELDS:
        names = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise ConfigError(f"{path}: expected `cluster`, and perhaps `options` and `workers`, got {names}")
    return found


def _checked(expected: dict[str, str], work: Callable[..., Any], *arguments: Any) -> Any:
    """Do the work on a worker, if its results are those of the process that asked."""
    from distributed import get_worker

    worker = get_worker()
    own = facts()
    for field, said in {"machine": "runs on", "code": "has the code"}.items():
        if own[field] != expected[field]:
            raise PipelineError(
                f"{VARIABLE}: worker {worker.address} {said} {own[field]}, and this process {expected[field]}; records "
                "would differ: start workers and this command on machines of one kind, at one commit"
            )
    if worker.state.nthreads != 1:
        raise PipelineError(
            f"{VARIABLE}: worker {worker.address} has {worker.state.nthreads} threads; start it with --nthreads 1"
        )
    return work(*arguments)


_kept: dict[str, Players] = {}  # on a worker: those of the last session, with the policies they have read


def _play(session: str, players: Players, shard: Assignment) -> Play:
    if session not in _kept:
        _kept.clear()
        _kept[session] = players
    return _kept[session].play(shard, lambda _done, _most: None)
