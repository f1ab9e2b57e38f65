"""Command line of the comparison, without logic: `python -m vqbet.comparison`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vqbet.commands import console

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def compare(
    size: Annotated[str, typer.Option(help="one of `sizes` in vqbet/comparison/params.yaml; none: its `size`")] = "",
    only: Annotated[str, typer.Option(help="cells whose name fits this pattern, such as 'pusht.vqbet.*'")] = "*",
    workers: Annotated[int, typer.Option(min=0, help="cells at a time; 0: as many as cores, one on a GPU")] = 0,
    plan: Annotated[bool, typer.Option("--plan", help="only list the cells")] = False,
    cell: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Train every policy for the same time in every world, evaluate it, and write docs/results.md. Can be resumed.

    Example: python -m vqbet.comparison --size minute --only 'pusht.*'
    """
    from vqbet import environment
    from vqbet.comparison import params as parameters
    from vqbet.comparison import run
    from vqbet.environment import processes

    root = environment.prepare()
    processes.die_with_parent()
    params = parameters.read(root / "params.yaml", size=size)
    if plan:
        table = {one.name: f"{one.train_s:.0f} s, {one.episodes} episodes" for one in run.chosen(params, only)}
        console.table(table)
        console.say(run.standing(root, params))
    elif cell:
        console.table(run.one(root, params, cell, console.watch()))
    else:
        console.table(run.run(root, params, only, workers, console.watch()))


def main() -> int:
    return console.guarded(lambda: app(standalone_mode=True))


if __name__ == "__main__":
    sys.exit(main())
