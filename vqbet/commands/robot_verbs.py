"""Command line of `vqbet export|serve|canary|fetch|share|simrobot`, the robot's verbs; other modules do the work."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vqbet.commands import console
from vqbet.commands.options import Certificate, CertificateKey, Grace, Idle, Port, Reference
from vqbet.commands.project import root

robot = typer.Typer()
ROLLED_BACK, OPEN = 3, 4  # exit codes of `canary`


@robot.command()
def export(
    policy: Annotated[
        str, typer.Argument(help="a reference, as of `show`, or the folder of a bundle; with --lerobot a task")
    ],
    onnx: Annotated[Path | None, typer.Option(help="folder for the graph of a policy and its manifest")] = None,
    lerobot: Annotated[Path | None, typer.Option(help="folder for a task's demonstrations as a LeRobot set")] = None,
    version: Annotated[str, typer.Option(help="of LeRobot's format: v3.0 or v2.1")] = "v3.0",
) -> None:
    """Export a policy as one ONNX graph, compared with torch, or a task's demonstrations as a LeRobot set."""
    if (onnx is None) == (lerobot is None):
        raise typer.BadParameter("expected --onnx or --lerobot, got both or neither")
    if onnx is not None:
        from vqbet.commands import export as stage

        console.table(stage.run(policy, onnx, console.watch()))
    elif lerobot is not None:
        from vqbet.commands import exported_data

        console.table(exported_data.run(root(), policy, lerobot, version, console.watch()))


@robot.command()
def serve(
    policy: Annotated[
        str, typer.Argument(help="<task>@champion, <task>/<version>, or the folder of a bundle or export")
    ],
    host: Annotated[str, typer.Option(help="address to listen on; beyond this machine $VQBET_TOKEN is needed")] = (
        "127.0.0.1"
    ),
    port: Port = 8000,
    digest: Annotated[str, typer.Option(help="serve the bundle of this digest or nothing")] = "",
    robots: Annotated[int, typer.Option(min=1, max=1024, help="episodes at once")] = 8,
    certificate: Certificate = None,
    key: CertificateKey = None,
    idle: Idle = 60.0,
    grace: Grace = 30.0,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks at the ledger")] = 10.0,
    singular: Annotated[bool, typer.Option("--singular", help="answer with one `action`, as BEHAVIOR wants")] = False,
    canary: Annotated[bool, typer.Option("--canary", help="a champion whose canary has not passed, too")] = False,
) -> None:
    """Serve a policy to robots, by websocket as openpi's clients speak it; follow the champion of the ledger."""
    from vqbet.commands import serve as command
    from vqbet.commands.load import is_reference
    from vqbet.serving.server import ServerOptions

    if is_reference(policy):
        root()
    options = ServerOptions(
        host=host,
        port=port,
        token=os.environ.get(command.TOKEN, ""),
        certificate=certificate,
        key=key,
        robots=robots,
        singular=singular,
        idle_s=idle,
        grace_s=grace,
    )
    command.run(policy, digest or None, options, console.say, every_s=every, canary=canary)


@robot.command()
def canary(
    task: Annotated[str, typer.Argument(help="a section of params.yaml, such as blockpush")],
    robot: Annotated[str, typer.Option(help="the robot's name in its recordings")],
    recordings: Annotated[Path, typer.Option(help="folder of its recordings, as the robot's recorder writes it")],
    follow: Annotated[bool, typer.Option("--follow", help="wait for recordings until it is decided")] = False,
) -> None:
    """Judge a new champion by its first episodes on one robot: release it to all, or roll it back at once.

    The limits are those of section `canary` that were committed at the promotion. Exit code 3: rolled back; 4: more
    episodes are needed.
    """
    from vqbet.commands import canary as command
    from vqbet.registry import FAILED

    report = command.run(root(), task, robot=robot, folder=recordings, follow=follow, say=console.say)
    console.table(report.rows)
    if report.outcome in (FAILED, command.OPEN):
        raise typer.Exit(ROLLED_BACK if report.outcome == FAILED else OPEN)


@robot.command()
def fetch(
    reference: Annotated[str, typer.Argument(help="as of `show`; a link of `vqbet share`; - for a link on stdin")],
    folder: Annotated[Path, typer.Argument(help="new or empty; for a machine without registry")],
    digest: Annotated[str, typer.Option(help="fetch the bundle of this digest or nothing")] = "",
) -> None:
    """Copy a registered policy to a folder, every byte checked: from the registry, or by a link without credentials."""
    asked = sys.stdin.readline().strip() if reference == "-" else reference
    if "://" in asked:
        from vqbet.commands import shared

        console.table(shared.fetch(asked, folder, digest))
        return
    from vqbet.commands import serve as command

    root()
    console.table(command.fetch(asked, folder, digest))


@robot.command()
def share(
    reference: Reference,
    hours: Annotated[float, typer.Option(min=0.01, max=168, help="until the link expires")] = 24.0,
    endpoint: Annotated[
        str, typer.Option(help="address of the S3 server as the robot reaches it; none: $AWS_ENDPOINT_URL")
    ] = "",
) -> None:
    """Put a registered policy into $VQBET_STORAGE and print a link by which a robot without credentials fetches it."""
    from vqbet.commands import shared

    root()
    console.table(shared.share(reference, hours=hours, endpoint=endpoint))


@robot.command()
def simrobot(
    task: Annotated[str, typer.Argument(help="a task with a world, such as blockpush")],
    server: Annotated[str, typer.Option(help="of `vqbet serve`; its token in $VQBET_TOKEN")] = "ws://127.0.0.1:8000",
    episodes: Annotated[int, typer.Option(min=1, help="how many episodes to play")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="the first episode's seed, of world, policy and faults")] = 0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="name=number, repeatable: jitter, latency, drop, noise, beyond, stuck, person, black, frozen"
        ),
    ] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="at the control rate; else as fast as it goes")] = False,
    execute: Annotated[str, typer.Option(help="first, chunk or average; none: the bundle's own rule")] = "",
    digest: Annotated[str, typer.Option(help="play the bundle of this digest or nothing")] = "",
    name: Annotated[str, typer.Option(help="of the robot, at the server and in recordings")] = "simrobot",
    limits: Annotated[
        Path | None, typer.Option(help="the robot's own limits, .toml or .json; only tighter ones")
    ] = None,
    record: Annotated[Path | None, typer.Option(help="folder of recordings, for vqbet ingest --from")] = None,
    certificate: Annotated[Path | None, typer.Option(help="certificate authority of a wss:// server, in PEM")] = None,
    wait: Annotated[float, typer.Option(min=0.0, help="seconds to wait for a server that is gone")] = 0.0,
    camera: Annotated[bool, typer.Option("--camera", help="record pictures, and show them to the operator")] = False,
    desk: Annotated[
        str, typer.Option(help="of `vqbet trials run`: play its trials; its token in $VQBET_ROBOT_TOKEN")
    ] = "",
) -> None:
    """Drive a simulated robot by a served policy, with faults to order, through guard and recorder."""
    from vqbet.commands import simrobot as command

    asked = command.Practice(
        server=server,
        episodes=episodes,
        seed=seed,
        faults=fault or (),
        realtime=realtime,
        execute=execute,
        digest=digest,
        name=name,
        limits=limits,
        record=record,
        certificate=certificate,
        wait_s=wait,
        camera=camera,
        desk=desk,
    )
    console.table(command.run(root(), task, asked, console.watch()))
