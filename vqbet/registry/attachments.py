"""Evidence of verdicts as MLflow artifacts: one run per verdict, looked up by the verdict's id."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqbet.contract import RegistryError
from vqbet.registry import connection, runs

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "evidence"
NOTE = "mlflow.note.content"  # what MLflow's page of a run shows as its description, in Markdown


def keep(task: str, folder: Path, *, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Upload the evidence `folder`, whose name is its id, into a run of its own, at most once."""
    if _runs(connection.client(), folder.name):
        return
    with runs.run(task, "verdict", params={}, tags={**tags, "to_be": folder.name}) as record:
        record.finish(metrics, [folder])
        record.tag(NOTE, f"**{tags['outcome']}**: {tags['reason']}")
        record.tag(TAG, folder.name)  # last, so that an interrupted run does not count as evidence


def attach(evidence: str, report: Path) -> None:
    """Add the report on a verdict to the run of its evidence, once, and link to the report from the run's description.

    Raises RegistryError if no run has that evidence.
    """
    client = connection.client()
    found = _runs(client, evidence)
    if not found:
        raise RegistryError(f"{connection.shown()}: no run holds the evidence {evidence[:12]}; run the gate again")
    record = runs.Run(client, found[0].info.run_id)
    note, link = found[0].data.tags.get(NOTE, ""), f"[evaluation report]({record.page(report.name)})"
    if link not in note:
        record.attach(report)
        record.tag(NOTE, f"{note}\n\n{link}")


def fetch(prefix: str, store: Path) -> Path:
    """Copy the evidence whose id begins with `prefix` into `store` and return its folder.

    The caller verifies the bytes. Raises RegistryError unless exactly one id begins with `prefix`.
    """
    client = connection.client()
    found: dict[str, Any] = {run.data.tags[TAG]: run for run in _runs(client, prefix)}
    if len(found) != 1:
        raise RegistryError(f"{connection.shown()}: {len(found)} verdicts have an id that begins with {prefix!r}")
    name, run = found.popitem()
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store, prefix=".fetching-") as scratch:
        with connection.refused(f"download the evidence {name[:12]}"):
            client.download_artifacts(run.info.run_id, name, scratch)
        shutil.move(Path(scratch) / name, store / name)
    return store / name


def _runs(client: MlflowClient, prefix: str) -> list[Any]:
    """Return the runs of all experiments that hold evidence whose id begins with `prefix`."""
    if not prefix or not set(prefix) <= set("0123456789abcdef"):
        raise RegistryError(f"{prefix!r}: expected the beginning of a verdict's id, which is hexadecimal")
    with connection.refused("search for evidence"):
        everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(everywhere, filter_string=f"tags.{TAG} LIKE '{prefix}%'", max_results=100))
