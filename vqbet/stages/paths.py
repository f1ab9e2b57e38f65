"""Paths of a task's files. Only this module spells them; a test compares them with dvc.yaml."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """Paths of one task in the project at `root`.

    training: 0 for the training in the graph; others are the same recipe with other seeds, outside the graph, see
    `retrain`. numbers, fetch: a store without its pictures, and where these are, for a clone without data/; see
    `streaming`.
    """

    root: Path
    task: str
    training: int = 0
    numbers: Path | None = None
    fetch: Callable[[str], Path] | None = None

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def store(self) -> Path:
        return self.numbers or self.root / "data" / f"{self.task}.zarr"

    @property
    def artifacts(self) -> Path:
        return self.scratch("artifacts") if self.training else self.root / "artifacts" / self.task

    @property
    def code(self) -> Path:
        """File with the hash of each stage's code, for DVC to compare."""
        return self.artifacts / "code.json"

    @property
    def validation(self) -> Path:
        return self.artifacts / "validation"

    @property
    def tokenizer(self) -> Path:
        return self.artifacts / "tokenizer"

    @property
    def features(self) -> Path:
        """Features of the graph, which trainings with other seeds share: a frozen encoder has no seed."""
        return self.root / "artifacts" / self.task / "features"

    @property
    def prior(self) -> Path:
        return self.artifacts / "prior"

    @property
    def policy(self) -> Path:
        return self.artifacts / "policy"

    @property
    def evaluation(self) -> Path:
        return self.artifacts / "evaluation"

    @property
    def gate(self) -> Path:
        return self.artifacts / "gate"

    @property
    def report(self) -> Path:
        return self.artifacts / "report"

    @property
    def health(self) -> Path:
        return self.artifacts / "health.json"

    @property
    def verdicts(self) -> Path:
        """Folder with the evidence of all verdicts of all tasks, named by hash."""
        return self.root / ".vqbet" / "verdicts"

    def trials(self, plan: str = "") -> Path:
        """Return the folder of a session of robot trials. plan: sha256 of its plan; "": the folder of all sessions."""
        home = self.root / ".vqbet" / "trials" / self.task
        return home / plan[:12] if plan else home

    def trainings(self) -> list[Paths]:
        """Return the paths of the existing trainings with other seeds, finished or not."""
        names = [folder.name for folder in (self.root / ".vqbet" / "retrained").glob("*") if folder.name.isdecimal()]
        found = [Paths(self.root, self.task, number) for number in sorted(map(int, names))]
        return [paths for paths in found if paths.artifacts.exists()]

    def metrics(self, stage: str) -> Path:
        return self.artifacts / "metrics" / f"{stage}.json"

    def plot(self, stage: str) -> Path:
        return self.artifacts / "plots" / f"{stage}.csv"

    def rehearsal(self, digest: str) -> Path:
        """Return the file with a bundle's rehearsal. Its times vary between runs, so it is not an output of a stage."""
        return self.scratch("rehearsals") / f"{digest}.json"

    def scratch(self, name: str) -> Path:
        """Return a folder outside every DVC output, which outlives the stage: checkpoints, timings, champions."""
        home = self.root / ".vqbet"
        return (home / "retrained" / str(self.training) if self.training else home) / name / self.task
