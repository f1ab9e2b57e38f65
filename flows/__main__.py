"""`python -m flows demo|ingest|pipeline|promote|ui`: the flows on the embedded server, started once for all of them."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from vqbet import console

os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"  # an error is shown once, as a sentence

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
Task = Annotated[str, typer.Argument(help="a section of params.yaml, such as blockpush")]


@app.command()
def demo(task: Task = "blockpush") -> None:
    """Demonstrations, versioned; then the whole pipeline; then one screen that says what came out."""
    from flows import ROOT
    from flows import ingest as ingestion
    from flows import pipeline as line
    from vqbet.stages import summary

    _serve()
    ingestion.ingest(task)
    result = line.pipeline(task)
    console.say("")
    console.table(summary.rows(ROOT, task, ran=[name for name, value in result.items() if value.get("ran")]))


@app.command()
def ingest(task: Task, source: Annotated[str, typer.Argument(help="path or URL; none: the oracle")] = "") -> None:
    """Bring demonstrations in, version, push and audit them."""
    from flows import ingest as ingestion

    _serve()
    console.table({name: str(value) for name, value in ingestion.ingest(task, source)["version"].items()})


@app.command()
def pipeline(task: Task = "blockpush") -> None:
    """Every stage in the order of the graph, then register and promote."""
    from flows import ROOT
    from flows import pipeline as line
    from vqbet.stages import summary

    _serve()
    result = line.pipeline(task)
    console.table(summary.rows(ROOT, task, ran=[name for name, value in result.items() if value.get("ran")]))


@app.command()
def promote(
    task: Task,
    candidate: Annotated[int, typer.Option(help="a version; 0: the one with alias candidate")] = 0,
    why: Annotated[str, typer.Option(help="written into the ledger")] = "the gate's verdict",
) -> None:
    """Make a candidate the champion, if its verdict allows it."""
    from flows import promote as promotion

    _serve()
    console.table(promotion.promote(task, candidate, why))


@app.command()
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="on this machine only")] = 4200) -> None:
    """Show flow runs and what they left in Prefect's pages, with its telemetry off."""
    from flows import ROOT
    from vqbet.contract import ConfigError

    if address := os.environ.get("PREFECT_API_URL"):
        raise ConfigError(f"PREFECT_API_URL: is set, and that server has its own pages: {address.removesuffix('/api')}")
    os.chdir(ROOT)
    os.environ["PREFECT_UI_API_URL"] = f"http://127.0.0.1:{port}/api"  # the pages would ask the default port
    command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *command])


def _serve() -> None:
    """Start the embedded server, or reach the one of $PREFECT_API_URL.

    Ctrl-C in a terminal goes to every process at once. Started with the signal blocked, the server outlives it for long
    enough to be told how the flow ended; Prefect would otherwise wait for minutes for a server that is gone.
    """
    from prefect.client.orchestration import get_client

    console.say("starting the embedded Prefect server (15 s, longer the first time)")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True) as client:
            client.hello()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended like Ctrl-C: children first, then the server
    sys.exit(console.guarded(lambda: app(standalone_mode=True)))
