"""Processes of a team that `bench.kills` may kill: by kind, with a name for each."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from vqbet.team import processes
from vqbet.team.run import RUN

PARTS = ("postgres", "s3", "prefect", "mlflow", "worker-cpu", "worker-gpu")
KINDS = {  # by the share of kills
    **dict.fromkeys(("worker", "prefect", "mlflow", "s3", "postgres"), 2),
    **{"backend": 2, "flow-run": 3, "child": 5, "push": 3, "everything": 1, "dask": 2},
}
ENGINE = ("prefect.engine", "vqbet.team.run")


def of_part(folder: Path, name: str) -> list[psutil.Process]:
    """Return the first process of a part, or nothing."""
    pid = processes.running(folder / name)
    return [psutil.Process(pid)] if pid else []


def engines(folder: Path, run: str = "") -> list[psutil.Process]:
    """Return the processes that execute flow runs of this team, or the flow run with this id."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            variables = process.environ()
            marked = variables.get(processes.MARK, "").startswith(f"{folder}/worker-")
            asked = run in ("", variables.get(RUN))
            if marked and asked and any(word in process.cmdline() for word in ENGINE) and process.status() != "zombie":
                found.append(process)
    return found


def everybody(folder: Path) -> list[psutil.Process]:
    """Return every process that carries the team's mark, and Postgres's, whose environment is its own."""
    found = {one.pid: one for name in PARTS for one in processes.left(folder / name)}
    return list(found.values())


def named(process: psutil.Process) -> str:
    """Return what a descendant of a flow run does, in two words."""
    with suppress(psutil.Error):
        words = process.cmdline()
        text = " ".join(words)
        if "dvc" in words:
            return f"dvc {words[words.index('dvc') + 1]}"
        if "stage" in words:
            return f"stage {words[words.index('stage') + 1].partition('@')[0]}"
        known = {
            "reproduce.py": "dvc repro",
            "vqbet.commands.code": "stage code",
            "spawn_main": "spawned",
            "forkserver": "forkserver",
            "resource_tracker": "tracker",
        }
        return next((name for sign, name in known.items() if sign in text), Path(words[0]).name if words else "gone")
    return "gone"


def descendants(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """Yield what flow runs have started, with names."""
    for engine in engines(folder):
        with suppress(psutil.Error):
            for child in engine.children(recursive=True):
                if child.status() != "zombie":
                    yield child, named(child)


def doing(folder: Path) -> str:
    """Return what the flow run does now: the stage, else DVC's command, else "flow"."""
    names = [name for _, name in descendants(folder)]
    stages = [name for name in names if name.startswith("stage ")]
    return next(iter(stages + [name for name in names if name.startswith("dvc ")]), "flow")


def chosen(folder: Path, kind: str, drawn: random.Random) -> tuple[str, list[psutil.Process]]:
    """Return the name and the processes of a victim of this kind; no process where there is none now."""
    if kind == "worker":
        kind = drawn.choice(("worker-cpu", "worker-gpu"))
    if kind in PARTS:
        return {"postgres": "postmaster", "s3": "S3 server"}.get(kind, kind), of_part(folder, kind)
    if kind == "everything":
        return kind, everybody(folder)
    if kind == "flow-run":
        return kind, engines(folder)[:1]
    if kind == "backend":
        found = [child for one in of_part(folder, "postgres") for child in one.children()]
        return "postgres backend", _one([one for one in found if "127.0.0.1(" in " ".join(one.cmdline())], drawn)
    below = list(descendants(folder))
    if kind == "push":
        return "dvc push", _one([one for one, name in below if name == "dvc push"], drawn)
    if kind == "dask":
        return "Dask worker", _one([one for one, name in below if name == "spawned"], drawn)
    found = _one([one for one, _ in below], drawn)
    return (named(found[0]) if found else kind), found


def _one(found: list[psutil.Process], drawn: random.Random) -> list[psutil.Process]:
    return [drawn.choice(sorted(found, key=lambda one: one.pid))] if found else []
