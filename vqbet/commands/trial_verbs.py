"""Command line of `vqbet trials ...`, the verbs of robot trials; modules of `vqbet.commands.trials` do the work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vqbet.commands import console
from vqbet.commands.manual import Manual
from vqbet.commands.options import Certificate, CertificateKey, ChosenPlan, Grace, Idle, Port, Task
from vqbet.commands.project import root

trials = typer.Typer(cls=Manual, no_args_is_help=True, help="Compare two policies on a robot, blind.")


@trials.command("serve")
def serve_trials(
    task: Task,
    plan: ChosenPlan = "",
    arm: Annotated[
        list[Path] | None, typer.Option(help="folder of a policy of the plan, repeatable; none: from the registry")
    ] = None,
    server_key: Annotated[Path | None, typer.Option(help="file of the key that signs; none: the project's own")] = None,
    host: Annotated[str, typer.Option(help="address to listen on; beyond this machine $VQBET_TOKEN is needed")] = (
        "127.0.0.1"
    ),
    port: Port = 8000,
    certificate: Certificate = None,
    key: CertificateKey = None,
    idle: Idle = 600.0,
    grace: Grace = 30.0,
) -> None:
    """Serve the policies of a plan to its robot, blind, with a signed statement per trial; needs $VQBET_DESK_TOKEN."""
    from vqbet.commands.serve import TOKEN
    from vqbet.commands.trials import serving
    from vqbet.serving.server import ServerOptions

    asked = serving.TrialServing(plan=plan, folders=arm or (), key=server_key)
    options = ServerOptions(
        host=host,
        port=port,
        token=os.environ.get(TOKEN, ""),
        certificate=certificate,
        key=key,
        robots=2,
        idle_s=idle,
        grace_s=grace,
    )
    folder = Path.cwd() if asked.alone else root()
    serving.run(folder, task, asked, options, os.environ.get(serving.DESK_TOKEN, ""), console.say)


@trials.command("plan")
def plan_trials(
    task: Task,
    robot: Annotated[str, typer.Option(help="name of the robot that all trials run on")] = "simrobot",
    candidate: Annotated[int, typer.Option(help="a version of the model; 0: the one with alias candidate")] = 0,
    server_key: Annotated[str, typer.Option(help="public key of a server elsewhere; none: the project's own")] = "",
    again: Annotated[bool, typer.Option("--again", help="although a session about the same policies is open")] = False,
) -> None:
    """Lock and seal the plan of a session: candidate against champion, blind, by the rules of params.yaml."""
    from vqbet.commands.trials import planning

    asked = planning.TrialsAsked(robot=robot, candidate=candidate, server_key=server_key, again=again)
    console.table(planning.run(root(), task, asked, console.watch()))


@trials.command("judge")
def judge_trials(
    task: Task,
    plan: Annotated[str, typer.Option(help="the first letters of a plan's sha256; none: the newest")] = "",
    recordings: Annotated[
        Path | None, typer.Option(help="folder of the robot's recordings; none: in the session's folder")
    ] = None,
) -> None:
    """Unblind a closed session, and give and seal the verdict on it."""
    from vqbet.commands.trials import judge

    console.table(judge.run(root(), task, plan, recordings, console.watch()))


@trials.command("status")
def trials_status(task: Task) -> None:
    """Show the sessions of a task and what each of them waits for; says nothing of who does how well."""
    from vqbet.commands.trials import sessions

    console.table(sessions.rows(root(), task))


@trials.command("run")
def run_trials(
    task: Task,
    plan: ChosenPlan = "",
    operator: Annotated[str, typer.Option(help="who runs the session; none: this user")] = "",
    server: Annotated[str, typer.Option(help="of `vqbet trials serve`; none: one is started beside the desk")] = "",
    simulated: Annotated[bool, typer.Option("--simulated", help="start a simulated robot beside the desk")] = False,
    scripted: Annotated[bool, typer.Option("--scripted", help="the operator is a script; with --simulated")] = False,
    terminal: Annotated[bool, typer.Option("--terminal", help="by single keys in this terminal too")] = False,
    host: Annotated[str, typer.Option(help="address of page and robot; beyond this machine with --certificate")] = (
        "127.0.0.1"
    ),
    port: Port = 8090,
    certificate: Certificate = None,
    key: CertificateKey = None,
    authority: Annotated[Path | None, typer.Option(help="certificate authority of a wss:// server, in PEM")] = None,
) -> None:
    """Run the trials of a plan: prints the address of the operator's page; goes on where a session was broken off."""
    from vqbet.commands.trials import run
    from vqbet.commands.trials.web import Door

    asked = run.TrialRun(
        plan=plan,
        operator=operator,
        server=server,
        authority=authority,
        simulated=simulated,
        scripted=scripted,
        terminal=terminal,
        door=Door(host, port, certificate, key),
    )
    console.table(run.run(root(), task, asked, console.watch()))
