"""Command line of `vqbet team up|status|down|init` and `vqbet worker`; `vqbet.team` does the work."""

from __future__ import annotations

from typing import Annotated

import typer

from vqbet.commands import console
from vqbet.commands.manual import Manual
from vqbet.commands.project import root

working = typer.Typer()
team = typer.Typer(cls=Manual, no_args_is_help=True, help="Run a team's servers and workers on this machine.")


@team.command()
def up() -> None:
    """Start what does not run yet: database, S3 server, Prefect, MLflow and a worker of each pool."""
    from vqbet import team as stage

    place = stage.Place.of(root())
    console.say(f"starting the team in {place.folder} (a minute the first time)")
    found = stage.up(place, lambda sentence: console.say(f"  {sentence}"))
    console.table({one.name: one.address or one.what for one in found})
    console.say(f"Join it from a shell: {stage.source_command(place.environment)}")


@team.command()
def status() -> None:
    """Say of every part whether it does its work; exit with 1 if one does not."""
    from vqbet import team as stage

    place = stage.Place.of(root())
    found = stage.status(place)
    for one in found:
        said = one.fault or f"process {one.pid}{', ' if one.address else ''}{one.address}"
        console.say(f"  {'WRONG' if one.fault else 'fine '}  {one.name}: {said}")
    if any(one.fault for one in found):
        raise typer.Exit(1)


@team.command()
def down() -> None:
    """End every server and worker; what they have stored stays."""
    from vqbet import team as stage

    place = stage.Place.of(root())
    ended = stage.down(place, lambda sentence: console.say(f"  {sentence}"))
    console.say(f"{ended} processes ended; what was stored stays in {place.folder}" if ended else "nothing runs")


@team.command()
def init(
    registry: Annotated[str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="http(s) address of the MLflow server")],
    data: Annotated[str, typer.Option(envvar="VQBET_DATA", help="DVC's remote: s3://<bucket>/<prefix>")],
    ledger: Annotated[str, typer.Option(envvar="VQBET_LEDGER", help="postgresql://... or s3://...")],
    prefect: Annotated[str, typer.Option(help="address of Prefect's API; none: $PREFECT_API_URL")] = "",
    evidence: Annotated[str, typer.Option(help="s3://<bucket>/<prefix>; none: $VQBET_STORAGE")] = "",
) -> None:
    """Join a team from this clone: write the file that a shell sources, and DVC's remote.

    Credentials that this shell has (AWS_..., MLFLOW_TRACKING_..., PREFECT_API_AUTH_STRING) are taken over, never shown.
    """
    from vqbet.commands import team_init as stage

    asked = stage.Membership(registry=registry, data=data, ledger=ledger, prefect=prefect, evidence=evidence)
    console.table(stage.init(root(), asked))


@working.command()
def worker(
    pool: Annotated[str, typer.Option(help="the work pool: cpu or gpu")] = "cpu",
    name: Annotated[str, typer.Option(help="under which Prefect's pages show it; none: host and pool")] = "",
    limit: Annotated[int, typer.Option(min=1, max=64, help="runs at once; on a GPU node its number of GPUs")] = 1,
) -> None:
    """Take runs of the team's deployments on this machine, each in a clone of its own, until Ctrl-C."""
    from vqbet.commands import worker as stage

    stage.run(root(), pool, name, limit)
