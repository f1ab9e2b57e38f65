"""The demo's project, made once for all processes that share the tests; who needs it works on a copy."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.project import Project

SILENCE = Path(__file__).resolve().parents[1] / "flows" / "silence"
SCREEN, OUTSIDE = "screen.txt", "outside.log"


@dataclass(frozen=True)
class Demo:
    """What `vqbet flow demo` left: its project, committed, and what it printed."""

    folder: Path

    @property
    def screen(self) -> str:
        return (self.folder / SCREEN).read_text(encoding="utf-8")

    @property
    def outside(self) -> Path:
        """The log of what any of its processes wanted from outside this machine; there is none where none did."""
        return self.folder / OUTSIDE

    def copy(self, root: Path) -> Project:
        return Project(root, of=self.folder / "project")


def shared(factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests share."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def made(folder: Path) -> Demo:
    """The demo in `folder`, run by whoever comes first; the others wait for it."""
    demo = Demo(folder)
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / SCREEN).exists():
            _make(demo)
    return demo


def _make(demo: Demo) -> None:
    """Run the demo, with every process watched for connections to elsewhere. The screen is written last."""
    project = Project(demo.folder / "project")
    project.small()
    project.commit()
    path = os.pathsep.join([str(SILENCE), str(project.root)])
    screen = project.run("vqbet", "flow", "demo", OUTSIDE_LOG=str(demo.outside), PYTHONPATH=path).stdout
    project.commit("after the demo")
    (demo.folder / SCREEN).write_text(screen, encoding="utf-8")
