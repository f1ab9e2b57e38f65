"""The demo's project: who needs it works on a copy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.project import Project

SILENCE = Path(__file__).resolve().parents[1] / "flows" / "silence"
SCREEN, OUTSIDE = "screen.txt", "outside.log"
WORKERS = {"VQBET_WORKERS": "2"}  # that play; here they too are watched


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


def make(folder: Path) -> None:
    """Run the demo in `folder`, with every process watched for connections to elsewhere."""
    demo, project = Demo(folder), Project(folder / "project")
    project.small()
    project.commit()
    path = os.pathsep.join([str(SILENCE), str(project.root)])
    told = project.run("vqbet", "flow", "demo", OUTSIDE_LOG=str(demo.outside), PYTHONPATH=path, **WORKERS)
    project.commit("after the demo")
    (folder / SCREEN).write_text(told.stdout, encoding="utf-8")
