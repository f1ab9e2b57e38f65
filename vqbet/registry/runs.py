"""MLflow runs, one per stage: flat parameters, tags, curves sent in batches, final metrics and files."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqbet.contract import RegistryError
from vqbet.files import manifest
from vqbet.registry import connection, relocation, rows

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

FLUSH_S = 2.0
BATCH_METRICS = 1000  # MLflow's limits per request
BATCH_PARAMS = 100
PATIENCE_S = 60.0  # longest pause between tries while the registry does not answer
WHO = "who"  # tag of a run: name of the person or machine that started it, see `vqbet.signing.who`
TRAINING = ("tokenizer", "prior", "bundle")  # stages whose output is part of a policy
DEVICE = "device"  # tag of a training's run: "cuda" or "cpu"
PROCESS = "process"  # tag of a run: host, id and start time of the writing process


class Run:
    """An open run. `track` is a `contract.Tracker`: cheap enough to be called at every training step."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.id = run_id
        self._client = client
        self._waiting: list[Metric] = []
        self._step = 0
        self._pause_s = FLUSH_S
        self._due = time.monotonic() + FLUSH_S

    def track(self, step: int, metrics: Mapping[str, float]) -> None:
        """Queue the metrics of one step. They are sent every FLUSH_S seconds, less often while the registry is down."""
        self._keep(step, metrics)
        if time.monotonic() < self._due:
            return
        try:
            self.flush()
            self._pause_s = FLUSH_S
        except RegistryError:  # training continues; metrics that are still unsent at the end raise there
            self._pause_s = min(self._pause_s * 2, PATIENCE_S)
        self._due = time.monotonic() + self._pause_s

    def finish(self, metrics: Mapping[str, float], artifacts: Sequence[Path]) -> None:
        """Log the stage's final metrics (at its last tracked step) and upload files and folders."""
        self._keep(self._step, metrics)
        self.flush()
        for path in artifacts:
            self.attach(path)

    def attach(self, path: Path) -> None:
        """Upload a file or a folder under its own name."""
        with connection.refused(f"take {path}"):
            if path.is_dir():
                self._client.log_artifacts(self.id, str(path), artifact_path=path.name)
            else:
                self._client.log_artifact(self.id, str(path))

    def tag(self, name: str, value: str) -> None:
        """Set a tag of the run."""
        with connection.refused(f"tag run {self.id}"):
            self._client.set_tag(self.id, name, value)

    def page(self, artifact: str) -> str:
        """Return the address of an artifact in MLflow's UI, relative to the UI."""
        with connection.refused(f"read run {self.id}"):
            number = self._client.get_run(self.id).info.experiment_id
        return f"#/experiments/{number}/runs/{self.id}/artifacts/{artifact}"

    def flush(self) -> None:
        """Send the queued metrics. Raises RegistryError, keeping them queued, if the registry does not answer."""
        while self._waiting:
            with connection.refused(f"take {len(self._waiting)} metrics of run {self.id}"):
                self._client.log_batch(self.id, metrics=self._waiting[:BATCH_METRICS])
            del self._waiting[:BATCH_METRICS]

    def close(self, status: str) -> None:
        """Send the queued metrics and end the run as FINISHED, FAILED or KILLED."""
        self.flush()
        with connection.refused(f"end run {self.id}"):
            self._client.set_terminated(self.id, status=status)

    def _keep(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self._step = max(self._step, step)
        self._waiting += [Metric(name, float(value), now_ms, step) for name, value in metrics.items()]


@contextmanager
def run(task: str, stage: str, *, params: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[Run]:
    """Open a run of `stage` in the experiment `task`; it ends FINISHED, FAILED if the body raises, KILLED on Ctrl-C.

    Nested params become dotted names. Raises RegistryError if the registry does not accept everything.
    """
    client = connection.client()
    record = Run(client, _open(client, task, stage, params, tags))
    try:
        yield record
    except BaseException:
        status = "KILLED" if isinstance(sys.exception(), KeyboardInterrupt) else "FAILED"
        with suppress(RegistryError):  # the body's own error takes precedence
            record.close(status)
        raise
    record.close("FINISHED")


def abandoned(task: str) -> list[str]:
    """Return the ids of runs marked RUNNING whose process, on this machine, no longer exists because it was killed."""
    client = connection.client()
    number = experiment(client, task)
    with connection.refused(f"list the runs of {task}"):
        running = client.search_runs([number], filter_string="attributes.status = 'RUNNING'", max_results=1000)
    return [run.info.run_id for run in running if _gone(run.data.tags.get(PROCESS, ""))]


def trainers(task: str, digest: str) -> set[str]:
    """Return the names of those who started the stages that made the bundle of this digest; empty if no run says so.

    Raises RegistryError if the registry does not answer, or `digest` is not a digest.
    """
    if manifest.SHA256.fullmatch(digest) is None:
        raise RegistryError(f"{task}: expected the digest of a bundle, got {rows.short(digest)}")
    client = connection.client()
    number = experiment(client, task)
    with connection.refused(f"list the runs of {task}"):
        made = client.search_runs([number], filter_string=f"tags.digest = '{digest}'", max_results=1000)
    tags = [run.data.tags for run in made if run.data.tags.get("stage") in TRAINING]
    return {found[WHO] for found in tags if found.get(WHO)}


def gpu_hours(task: str, digests: Iterable[str]) -> float:
    """Return the hours of GPU that making these bundles took, by the runs of their stages that had one.

    Raises RegistryError as `trainers`.
    """
    client, spent_ms = connection.client(), 0
    number = experiment(client, task)
    with connection.refused(f"list the runs of {task}"):
        for digest in digests:
            query = f"tags.digest = '{digest}' AND tags.{DEVICE} = 'cuda'"
            for made in client.search_runs([number], filter_string=query, max_results=1000):
                if made.data.tags.get("stage") in TRAINING and made.info.end_time:
                    spent_ms += made.info.end_time - made.info.start_time
    return spent_ms / 3_600_000


def end(run_id: str) -> None:
    """Mark the run as killed."""
    with connection.refused(f"end run {run_id}"):
        connection.client().set_terminated(run_id, status="KILLED")


def experiment(client: MlflowClient, task: str) -> str:
    """Return the id of the experiment `task`, creating it on first use with its files beside the SQLite store."""
    from mlflow.exceptions import MlflowException

    with connection.refused(f"open experiment {task}"):
        found = client.get_experiment_by_name(task)
        if found is not None:
            return str(found.experiment_id)
        embedded = connection.uri().startswith(connection.SQLITE)
        place = str(connection.home() / relocation.FOLDER / task) if embedded else None  # a server has its own place
        try:
            return str(client.create_experiment(task, artifact_location=place))
        except MlflowException:
            made_by_another = client.get_experiment_by_name(task)
            if made_by_another is None:
                raise
            return str(made_by_another.experiment_id)


def _open(client: MlflowClient, task: str, stage: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    from mlflow.entities import Param

    labels = {"task": task, "stage": stage, PROCESS: _own(), **tags}
    if commit := tags.get("git_commit"):
        labels["mlflow.source.git.commit"] = commit  # the UI's "Source version"
    flat = [Param(name, str(value)) for name, value in flatten(params).items()]
    number = experiment(client, task)
    with connection.refused(f"start a run of {stage}"):
        run_id = str(client.create_run(number, tags=labels, run_name=stage).info.run_id)
        for first in range(0, len(flat), BATCH_PARAMS):
            client.log_batch(run_id, params=flat[first : first + BATCH_PARAMS])
    return run_id


def _own() -> str:
    import psutil

    process = psutil.Process()
    return f"{platform.node()} {process.pid} {process.create_time():.2f}"


def _gone(process: str) -> bool:
    """Return whether a process of this machine has ended; False for a process of another machine."""
    import psutil

    node, _, rest = process.partition(" ")
    number, _, born = rest.partition(" ")
    if node != platform.node() or not number.isdigit():
        return False
    try:
        return f"{psutil.Process(int(number)).create_time():.2f}" != born
    except psutil.NoSuchProcess:
        return True


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
