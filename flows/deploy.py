"""Deployment of infra/prefect.yaml to the server of $PREFECT_API_URL, with its work pools and automations."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from flows import automations
from flows.automations import Patience
from vqbet import versions
from vqbet.contract import ConfigError, PipelineError
from vqbet.team.run import BRANCH

FILE = Path("infra") / "prefect.yaml"
OURS = "flows/"  # how entrypoints of this project's deployments begin
TIMEOUT_S = 300


def deploy(root: Path, *, gpus: int, runs: int, patience: Patience) -> Iterator[tuple[str, str]]:
    """Give the team this commit, its work pools, its deployments and its automations; yield a row about each.

    gpus, runs: runs at once in the pools gpu and cpu, over all workers. Deploying again changes what has changed and
    keeps the rest. Raises ConfigError without a server, PipelineError where git or Prefect refuse.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            "PREFECT_API_URL: is not set; join a team first: source the file environment of `vqbet team up`"
        )
    branch, repository = os.environ.get("VQBET_BRANCH", BRANCH), os.environ.get("VQBET_REPOSITORY") or str(root)
    head = versions.advance(root, repository, branch)
    yield "code", f"branch {branch} of {versions.shown(repository)} is at {head[:12]}{_left_out(root)}"
    with get_client(sync_client=True) as client:
        for name, limit in {"cpu": runs, "gpu": gpus}.items():
            yield f"pool {name}", f"{_pool(client, name, limit)}, {limit} run{'s' * (limit > 1)} at once"
        _deployed(root)
        for found in sorted(client.read_deployments(), key=lambda each: each.name):
            flow = client.read_flow(found.flow_id)
            yield f"{flow.name}/{found.name}", _described(found)
        ours = [each for each in client.read_deployments() if (each.entrypoint or "").startswith(OURS)]
        yield from automations.made(client, ours, patience)


def _left_out(root: Path) -> str:
    """Return what of this folder the team does not get."""
    changed = versions.dirty(root)
    if not changed:
        return ""
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"; not committed, so not part of it: {', '.join(changed[:3])}{more}"


def _pool(client: SyncPrefectClient, name: str, limit: int) -> str:
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        from prefect.workers.process import ProcessWorker

        template = ProcessWorker.get_default_base_job_template()
        made = WorkPoolCreate(name=name, type="process", concurrency_limit=limit, base_job_template=template)
        client.create_work_pool(made)
        return "made"
    client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))
    return f"of type {found.type}, as it was"


def _deployed(root: Path) -> None:
    """Let Prefect read the file. Raises PipelineError with the last lines of what it says."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(FILE)]
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    if done.returncode:
        said = " ".join(re.sub(r"[^\x20-\x7e]+", " ", f"{done.stdout[-600:]} {done.stderr[-600:]}").split())
        raise PipelineError(f"{FILE}: cannot be deployed: {said}")


def _described(found: DeploymentResponse) -> str:
    pool = f"pool {found.work_pool_name}"
    times = [
        f"{getattr(each.schedule, 'cron', each.schedule)}{'' if each.active else ' (off)'}" for each in found.schedules
    ]
    tags = f", tags {', '.join(found.tags)}" if found.tags else ""
    when = f"{'; '.join(times)} UTC" if times else "no schedule"
    return f"{pool}, {when}{tags}: {found.description}"
