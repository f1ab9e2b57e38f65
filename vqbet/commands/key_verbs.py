"""Command line of `vqbet keys make|show|trust|adopt|list`; `vqbet.commands.keys` does the work."""

from __future__ import annotations

from typing import Annotated

import typer

from vqbet.commands import console
from vqbet.commands.manual import Manual
from vqbet.commands.project import project, root

keys = typer.Typer(cls=Manual, no_args_is_help=True, help="Make signing keys and manage the trust file.")


@keys.command("make")
def make_key(
    file: Annotated[str, typer.Argument(help="a new file outside of the repository")] = "~/.config/vqbet/key.pem",
) -> None:
    """Make an Ed25519 key for this person or machine."""
    from vqbet.commands import keys as stage

    root()
    console.table(stage.make(file))


@keys.command("show")
def show_key() -> None:
    """Show the id and the public key of the key that VQBET_KEY names."""
    from vqbet.commands import keys as stage

    root()
    console.table(stage.show())


@keys.command("trust")
def trust_key(
    name: Annotated[str, typer.Argument(help="of the person or machine, as ledger and approvals will name it")],
    role: Annotated[list[str], typer.Option(help="judge, approve or promote; may be repeated")],
    public_key: Annotated[str, typer.Option(help="as `keys show` prints it; none: of the key in VQBET_KEY")] = "",
) -> None:
    """Allow a key to judge, approve or promote, by an entry in infra/trust.yaml that counts once it is committed."""
    from vqbet.commands import keys as stage

    console.table(stage.trust(root(), name, role, public_key))


@keys.command("adopt")
def adopt_keys(task: Annotated[str, typer.Argument(help="a section of params.yaml, such as blockpush")]) -> None:
    """Accept the unsigned links that a task's chains hold now; every later link must be signed."""
    from vqbet.commands import keys as stage

    folder, _ = project(task)
    console.table(stage.adopt(folder, task))


@keys.command("list")
def list_keys() -> None:
    """Show the keys in the committed trust file and their roles."""
    from vqbet.commands import keys as stage

    root()
    console.table(stage.listing())
