"""Where a task's files are. The only place that spells them; dvc.yaml names the same ones, and a test compares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of one task in the project at `root`.

    training: 0 is the one that the graph makes; the others are the same recipe with other seeds, see `retrain`, and lie
    outside the graph.
    """

    root: Path
    task: str
    training: int = 0

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def store(self) -> Path:
        return self.root / "data" / f"{self.task}.zarr"

    @property
    def artifacts(self) -> Path:
        return self.scratch("artifacts") if self.training else self.root / "artifacts" / self.task

    @property
    def code(self) -> Path:
        """The hash of each stage's code, for DVC to compare."""
        return self.artifacts / "code.json"

    @property
    def validation(self) -> Path:
        return self.artifacts / "validation"

    @property
    def tokenizer(self) -> Path:
        return self.artifacts / "tokenizer"

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
        """The evidence of all verdicts about all tasks, named by hash."""
        return self.root / ".vqbet" / "verdicts"

    def trainings(self) -> list[Paths]:
        """Those of the recipe with other seeds that are here, finished or not."""
        names = [folder.name for folder in (self.root / ".vqbet" / "retrained").glob("*") if folder.name.isdecimal()]
        found = [Paths(self.root, self.task, number) for number in sorted(map(int, names))]
        return [paths for paths in found if paths.artifacts.exists()]

    def metrics(self, stage: str) -> Path:
        return self.artifacts / "metrics" / f"{stage}.json"

    def plot(self, stage: str) -> Path:
        return self.artifacts / "plots" / f"{stage}.csv"

    def rehearsal(self, digest: str) -> Path:
        """What the rehearsal of a bundle showed; its times differ from run to run, so it is no output of a stage."""
        return self.scratch("rehearsals") / f"{digest}.json"

    def scratch(self, name: str) -> Path:
        """Outside every DVC output, so that it outlives the stage that writes it: checkpoints, timings, champions."""
        home = self.root / ".vqbet"
        return (home / "retrained" / str(self.training) if self.training else home) / name / self.task
