"""Run of the comparison: makes the missing cells, several in parallel, then the page and its figures."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet.comparison import cell as cells
from vqbet.comparison import grid, results
from vqbet.comparison import page as results_page
from vqbet.comparison.grid import Cell
from vqbet.comparison.results import Result
from vqbet.contract import ConfigError, PipelineError
from vqbet.evaluation import cluster
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.comparison.params import Params


def chosen(params: Params, only: str) -> list[Cell]:
    """Return the cells, at the size in `params`, whose name matches the pattern. Raises ConfigError if none does."""
    every = grid.plan(params.paper)
    found = [cell for cell in every if fnmatch(cell.name, only)]
    if not found:
        raise ConfigError(f"no cell is called {only!r}; there are {', '.join(cell.name for cell in every)}")
    return found


def one(root: Path, params: Params, name: str, watch: Watch) -> dict[str, str]:
    """Make only the cell of this name, even if it has a result."""
    (cell,) = chosen(params, name)
    return {name: _line(cells.run(root, params, cell, watch))}


def run(root: Path, params: Params, only: str, workers: int, watch: Watch) -> dict[str, str]:
    """Make the missing cells with `workers` processes (0: one per core, one on a GPU), then the page.

    Where $VQBET_DASK names a cluster, each of its workers makes a cell at a time, in this folder.

    Raises PipelineError at the end if a cell failed; the results of the others are kept.
    """
    wanted, named = chosen(params, only), os.environ.get(cluster.VARIABLE)
    left = cells.missing(root, params, wanted, cells.check(root, params, wanted))
    count = min(workers or _workers(), max(1, len(left)))
    hours = sum(cell.train_s for cell in left) / 3600
    place = f"on {named}: {hours:.1f}" if named else f"{count} at a time: {hours / count:.1f}"
    watch.say(f"{len(wanted)} cells, {len(left)} to make, {place} hours of training")
    if named and left:
        failed = _on_cluster(root, params, left, named, watch)
    else:
        failed = _one_by_one(root, params, left, watch) if count == 1 else _side_by_side(params, left, count, watch)
    page(root, params)
    if failed:
        raise PipelineError(
            f"{len(failed)} of {len(left)} cells failed: {', '.join(failed)}; run it again after mending"
        )
    return {"cells": str(len(wanted)), "made now": str(len(left)), "open": "docs/results.md"}


def page(root: Path, params: Params) -> None:
    """Write docs/results.md and its figures from all results of the present parameters."""
    found, shown = _results(root, params)
    where = root / "docs" / "results.md", cells.folder(root)
    results_page.write(*where, shown, tuple(params.paper.sizes), left_out=len(found) - len(shown))


def standing(root: Path, params: Params) -> str:
    """Return a sentence with the number of results, and of those made with the present parameters."""
    found, shown = _results(root, params)
    return f"{len(found)} results, {len(shown)} of them with these parameters"


def _results(root: Path, params: Params) -> tuple[list[Result], list[Result]]:
    found = results.read(cells.folder(root))
    return found, cells.current(params, found)


def _workers() -> int:
    import torch

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def _one_by_one(root: Path, params: Params, left: Sequence[Cell], watch: Watch) -> list[str]:
    for cell in left:
        watch.say(f"{cell.name}: {_line(cells.run(root, params, cell, watch))}")
        page(root, params)
    return []


def _side_by_side(params: Params, left: Sequence[Cell], count: int, watch: Watch) -> list[str]:
    """Run each cell in its own process with its share of the cores; return the names of failed cells."""
    running: set[subprocess.Popen[bytes]] = set()
    stopped = threading.Event()

    def make(cell: Cell) -> int:
        if stopped.is_set():
            return 0
        threads = max(1, (os.cpu_count() or 1) // count)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        child = subprocess.Popen(_command(params.paper.size, cell.name), env=environment)
        running.add(child)
        code = child.wait()
        running.discard(child)
        return code

    failed = []
    with ThreadPoolExecutor(count) as pool:
        futures = {pool.submit(make, cell): cell for cell in left}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                if future.result():
                    failed.append(futures[future].name)
                watch.say(f"{done} of {len(left)}: {futures[future].name}{' FAILED' if future.result() else ''}")
        except KeyboardInterrupt:
            stopped.set()
            for child in list(running):
                child.terminate()
            raise
    return failed


def _on_cluster(root: Path, params: Params, left: Sequence[Cell], named: str, watch: Watch) -> list[str]:
    """Have the workers of a cluster make the cells; return the names of failed ones."""
    failed = []
    with cluster.Cluster(named) as place:
        work = [(str(root), params.paper.size, cell.name) for cell in left]
        for done, (at, code) in enumerate(place.map(_made_there, work), 1):
            if code:
                failed.append(left[at].name)
            watch.say(f"{done} of {len(left)}: {left[at].name}{' FAILED' if code else ''}")
    return failed


def _made_there(root: str, size: str, name: str) -> int:
    """Make a cell in a process of its own, which ends with nothing of it left in the worker; return its exit status."""
    named = {name: value for name, value in os.environ.items() if name != cluster.VARIABLE}
    return subprocess.run(_command(size, name), cwd=root, env=named | {"OMP_NUM_THREADS": "1"}).returncode


def _command(size: str, name: str) -> list[str]:
    return [sys.executable, "-m", "vqbet.comparison", "--size", size, "--cell", name]


def _line(result: Result) -> str:
    score = sum(result.score) / len(result.score)
    return f"score {score:.3f} of {len(result.score)} episodes, trained {result.train_s:.0f} s"
