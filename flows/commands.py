"""Command line of `vqbet flow ...`, on one embedded server per command, or on the team's server."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from vqbet.commands import console
from vqbet.commands.options import Task

os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"  # an error is shown once, as a sentence

app = typer.Typer(rich_markup_mode=None)


@app.command()
def demo(task: Task = "blockpush") -> None:
    """Ingest a task's demonstrations, run its pipeline and show a summary."""
    _serve()
    from flows import ROOT
    from flows import ingest as ingestion
    from flows import pipeline as line
    from vqbet.commands import summary

    ingestion.ingest(task)
    result = line.pipeline(task)
    console.say("")
    console.table(summary.rows(ROOT, task, ran=[name for name, value in result.items() if value.get("ran")]))


@app.command()
def ingest(task: Task, source: Annotated[str, typer.Argument(help="path or URL; none: the oracle")] = "") -> None:
    """Bring demonstrations in, version, push and audit them."""
    _serve()
    from flows import ingest as ingestion

    console.table({name: str(value) for name, value in ingestion.ingest(task, source)["version"].items()})


@app.command()
def pipeline(task: Task = "blockpush") -> None:
    """Run every stage in the order of the graph, then register and promote."""
    _serve()
    from flows import ROOT
    from flows import pipeline as line
    from vqbet.commands import summary

    result = line.pipeline(task)
    console.table(summary.rows(ROOT, task, ran=[name for name, value in result.items() if value.get("ran")]))


@app.command()
def promote(
    task: Task,
    candidate: Annotated[int, typer.Option(help="a version; 0: the one with alias candidate")] = 0,
    why: Annotated[str, typer.Option(help="written into the ledger")] = "the gate's verdict",
) -> None:
    """Make a candidate the champion, if its verdict allows it."""
    _serve()
    from flows import promote as promotion

    console.table(promotion.promote(task, candidate, why))


@app.command()
def resume() -> None:
    """Resume suspended promotions of $PREFECT_API_URL whose robot trials or approvals are there now."""
    from vqbet.contract import ConfigError

    if not os.environ.get("PREFECT_API_URL"):
        raise ConfigError(
            "PREFECT_API_URL: is not set; only promotions by a deployment on a team's Prefect server are suspended, "
            "see infra/prefect.yaml"
        )
    _serve()
    from flows import resume as resumption

    console.table(resumption.resume() or {"suspended promotions": "none of this project"})


@app.command()
def deploy(
    gpus: Annotated[int, typer.Option(min=1, max=1024, help="GPUs of all workers: runs at once in pool gpu")] = 1,
    runs: Annotated[int, typer.Option(min=1, max=1024, help="runs at once in pool cpu, over all workers")] = 2,
    lost: Annotated[int, typer.Option(min=60, help="seconds without a heartbeat until a run counts as crashed")] = 120,
    start: Annotated[int, typer.Option(min=60, help="seconds that a run which a worker took may need to start")] = 1800,
) -> None:
    """Give the team this commit, work pools, the deployments of infra/prefect.yaml, and automations for lost runs."""
    from flows import ROOT
    from flows import deploy as deployment
    from flows.automations import Patience

    for name, said in deployment.deploy(ROOT, gpus=gpus, runs=runs, patience=Patience(lost, start)):
        console.say(f"  {name:<26}  {said}")


@app.command()
def screen(task: Task = "blockpush") -> None:
    """Show what the task's artefacts say, as at the end of the demo; pull them first where they are not here."""
    from flows import ROOT
    from vqbet import versions
    from vqbet.commands import summary
    from vqbet.stages import runner

    versions.pull(ROOT, task, runner.ORDER)
    console.table(summary.rows(ROOT, task, ran=[]))


@app.command()
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="on this machine only")] = 4200) -> None:
    """Show flow runs and their results in Prefect's pages, with a password and telemetry off."""
    from flows import ROOT, server
    from vqbet.contract import ConfigError

    if address := os.environ.get("PREFECT_API_URL"):
        raise ConfigError(f"PREFECT_API_URL: is set, and that server has its own pages: {address.removesuffix('/api')}")
    os.chdir(ROOT)
    _interruptible()
    server.run(server.listen(port), _password(port), pages=True)


def _password(port: int) -> str:
    """Return the password of the environment, else a new one, shown once and only on a terminal."""
    from flows import server
    from vqbet.contract import ConfigError

    address = f"http://{server.HOST}:{port}"
    if password := os.environ.get(server.PASSWORD):
        console.say(f"Prefect's pages: {address}  (the password is that of ${server.PASSWORD})")
        return password
    if not sys.stdout.isatty():
        raise ConfigError(
            f"{server.PASSWORD}: is not set, and a new password is shown on a terminal only, since others may read a "
            "file; set it to user:password"
        )
    password = server.new_password()
    console.say("Prefect's pages, for you only, until Ctrl-C; ready in about 15 s:")
    console.say(f"  {address}{server.ENTRANCE}#{password}")
    console.say(f"in another browser: {address}  with the password  {password}")
    return password


def _serve() -> None:
    """Start the embedded server, or connect to $PREFECT_API_URL. To be called before prefect is imported."""
    _interruptible()
    if not os.environ.get("PREFECT_API_URL"):
        from flows import server

        console.say("starting the embedded Prefect server (15 s, longer the first time)")
        server.start()
        return
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.hello()


def _interruptible() -> None:
    """Handle SIGTERM like Ctrl-C: end children first, then the server."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
