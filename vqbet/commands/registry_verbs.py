"""Command line of `vqbet register|approve|promote|rollback|publish|show|history|audit`, the registry's verbs."""

from __future__ import annotations

from typing import Annotated

import typer

from vqbet.commands import console
from vqbet.commands.options import Reference, Task
from vqbet.commands.project import project, root

registered = typer.Typer()


@registered.command()
def register(task: Task) -> None:
    """Register the task's tokenizer and policy, with their verdict, as its candidate."""
    from vqbet.commands import release

    folder, _ = project(task)
    console.table(release.register(folder, task))


@registered.command()
def promote(
    task: Task,
    candidate: Annotated[int, typer.Option(help="a version of the model; 0: the one with alias candidate")] = 0,
    why: Annotated[str, typer.Option(help="written into the ledger")] = "the gate's verdict",
    force: Annotated[bool, typer.Option("--force", help="without a verdict")] = False,
) -> None:
    """Make a candidate the champion, if a verdict on exactly this candidate and champion allows it."""
    from vqbet.commands import release

    folder, _ = project(task)
    if force:
        reason = "" if why == "the gate's verdict" else why
        console.table(release.force(folder, task, candidate=candidate, why=reason))
    else:
        console.table(release.promote(folder, task, candidate=candidate, why=why, watch=console.watch()))


@registered.command()
def approve(task: Task, why: Annotated[str, typer.Option(help="written down beside your name")]) -> None:
    """Approve the task's present verdict, as promotion.approvals may require before a promotion."""
    from vqbet.commands import release

    folder, _ = project(task)
    console.table(release.approve(folder, task, why=why))


@registered.command()
def rollback(task: Task, why: Annotated[str, typer.Option(help="written into the ledger")]) -> None:
    """Make the previous champion the champion again, for a reason and without a verdict."""
    from vqbet.commands import release

    folder, _ = project(task)
    console.table(release.rollback(folder, task, why=why))


@registered.command()
def publish(task: Task) -> None:
    """Publish the hash of the ledger's last entry to the place set by promotion.publish in params.yaml.

    Promotions and rollbacks publish by themselves.
    """
    from vqbet.commands import release

    folder, _ = project(task)
    console.table(release.publish(folder, task))


@registered.command()
def show(reference: Reference) -> None:
    """Show a registered policy, its data and its verdicts."""
    from vqbet.commands import release

    root()
    console.table(release.show(reference))


@registered.command()
def history(
    task: Task,
    at: Annotated[str, typer.Option(help="only who was champion then: 2026-05-01 or 2026-05-01T14:30, UTC")] = "",
) -> None:
    """Show who was champion when, and why, from the ledger, checked link by link."""
    from vqbet.commands import release

    project(task)
    entries = release.history(task, at)
    for entry in entries:
        console.table(entry)
    if not entries:
        console.say(f"{task}: no champion{' then' if at else ' yet'}")


@registered.command()
def audit(
    task: Task,
    repair: Annotated[bool, typer.Option("--repair", help="finish what a crash left half done")] = False,
) -> None:
    """Check ledger, registry, evidence and bundles against one another; exit with 1 if something is wrong."""
    from vqbet.commands import audit as stage

    folder, _ = project(task)
    found = stage.run(folder, task, console.watch(), repair=repair)
    console.table(
        {one.what: "; ".join(filter(None, [one.wrong or one.note or "as it should be", one.mended])) for one in found}
    )
    if any(one.open for one in found):
        raise typer.Exit(1)
