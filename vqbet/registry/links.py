"""Links between pages: from MLflow to the flow run that made something, and the addresses of MLflow's own pages.

What depends on the machine is here and not in the outputs of stages, which have the same bytes everywhere.
"""

from __future__ import annotations

import os
from typing import Any

from vqbet.files import manifest
from vqbet.registry import attachments, connection
from vqbet.registry.attachments import NOTE
from vqbet.registry.models import Version
from vqbet.registry.runs import Run

VARIABLE = "VQBET_FLOW_RUN"  # address of the page of the flow run at work, for its stages; set by flows in a team
TAG = "flow_run"  # of an MLflow run: that address
REPORT = "evaluation report"  # name of the link to it
FILE = "index.html"  # the report, as it is attached to the run of its evidence


def started_by(record: Run) -> None:
    """Link from an open run to the flow run at work, if there is one."""
    if address := os.environ.get(VARIABLE, ""):
        record.tag(TAG, address)
        record.tag(NOTE, f"[flow run]({address})")


def judged_by(evidence: str, address: str) -> None:
    """Link from the run of a verdict's evidence to the flow run that judged, once; the first one stays."""
    run = _holding(evidence)
    if run and TAG not in run.data.tags:
        record = Run(connection.client(), run.info.run_id)
        record.tag(NOTE, f"{run.data.tags.get(NOTE, '')}\n\n[flow run]({address})")
        record.tag(TAG, address)


def describe(version: Version) -> None:
    """Make verdict and links the description of a version, as MLflow's page of it shows them.

    The links are relative to MLflow's pages, so that they hold at any address.
    """
    run = _holding(version.tags.get("evidence", ""))
    links = [f"[{name}]({place})" for name, place in _places(run).items()] if run else []
    text = "\n\n".join(filter(None, [version.tags.get("verdict", ""), " · ".join(links)]))
    if text:
        with connection.refused(f"describe {version.name}/{version.version}"):
            connection.client().update_model_version(version.name, str(version.version), description=text)


def pages(version: Version) -> dict[str, str]:
    """Return addresses of pages about a version: in MLflow, and of its flow run. {} where the registry is a file."""
    if connection.uri().startswith(connection.SQLITE):
        return {}
    run = _holding(version.tags.get("evidence", ""))
    places = {f"{version.name} version {version.version}": f"#/models/{version.name}/versions/{version.version}"}
    places |= _places(run) if run else {}
    address = f"{connection.shown().rstrip('/')}/"
    return {name: f"{address}{place}" if place.startswith("#") else place for name, place in places.items()}


def _places(run: Any) -> dict[str, str]:
    """Return places of the run of a verdict, relative to MLflow's pages, and the address of its flow run."""
    own = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    flow = {"flow run": run.data.tags[TAG]} if TAG in run.data.tags else {}
    return {REPORT: f"{own}/artifacts/{FILE}", "run of the verdict": own, **flow}


def _holding(evidence: str) -> Any:
    """Return the run that holds the evidence, None where there is none."""
    if not manifest.SHA256.fullmatch(evidence):
        return None
    client = connection.client()
    with connection.refused("search for evidence"):
        everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(everywhere, f"tags.{attachments.TAG} = '{evidence}'", max_results=1)
    return found[0] if found else None
