"""State of everything between policies and robots, for `vqbet status`: registry, ledger, evidence and Prefect.

A part that cannot be read is a sentence in its place, so that the others are shown all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from vqbet import config, registry
from vqbet.commands import waiting
from vqbet.commands.trials import recorded
from vqbet.contract import VqbetError
from vqbet.files import atomic
from vqbet.pages.page import render
from vqbet.registry import Attempt, Attempts, Canaries, LedgerEntry, Version, links
from vqbet.stages import artifacts
from vqbet.stages.paths import Paths

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Robot:
    """Robot and the policy that it last proved to run, in a canary or in trials. digest: of the policy."""

    name: str
    digest: str
    when: str
    how: str


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of the present champion. gpu_hours: of training; megabytes: of the bundle; robot_minutes: of trials."""

    gpu_hours: float
    robot_minutes: float
    trials: int
    simulated: int  # episodes of its verdicts
    megabytes: float


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """State of one task. wrong: what could not be read, a sentence each."""

    task: str
    champion: Version | None = None
    entry: LedgerEntry | None = None  # that made it champion
    waits: Sequence[str] = ()
    canary: str = ""
    drift: str = ""
    drifted: bool = False
    robots: Sequence[Robot] = ()
    costs: Costs | None = None
    verdict: str = ""  # of the newest attempt that has one
    pages: Mapping[str, str] = field(default_factory=dict)  # of the champion on servers, by name
    wrong: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class FlowRun:
    name: str
    flow: str
    state: str
    since: str
    address: str


@dataclass(frozen=True, slots=True)
class Status:
    """State of a project. no_runs: why there are no flow runs to show; empty where there could be."""

    place: str
    tasks: Sequence[TaskStatus]
    runs: Sequence[FlowRun] = ()
    no_runs: str = ""

    def rows(self) -> dict[str, str]:
        """Return two columns for the terminal."""
        found = {"registry": self.place}
        for one in self.tasks:
            found |= {f"{one.task}{' ' + name if name else ''}": said for name, said in _told(one).items()}
        running = [f"{run.flow} {run.name}: {run.state} since {run.since}" for run in self.runs]
        return {**found, "runs": "; ".join(running) or self.no_runs or "none"}


@dataclass(slots=True)
class _Reader:
    """Reads parts of a task's state; what fails is noted."""

    wrong: list[str] = field(default_factory=list)

    def part(self, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except VqbetError as error:
            if str(error) not in self.wrong:
                self.wrong.append(str(error))
            return otherwise


def run(root: Path, task: str, runs: Callable[[], list[FlowRun]]) -> Status:
    """Return the state of one task; "": of all that have a champion, a candidate's verdict or a fault.

    runs: reads unfinished flow runs, and raises VqbetError with the reason where there are none to read.
    """
    registry.check()
    names = [task] if task else config.sections(root / "params.yaml")
    found = [_task(root, name) for name in names]
    shown = found if task else [one for one in found if one.entry or one.waits or one.verdict or one.wrong]
    reader = _Reader()
    running = reader.part(runs, list[FlowRun]())
    return Status(registry.shown(), shown, running, "; ".join(reader.wrong))


def write(root: Path, status: Status) -> Path:
    """Write the page of `status`; return its path."""
    path = root / ".vqbet" / "status" / "index.html"
    beside = {
        one.task: {name: os.path.relpath(there, path.parent) for name, there in _pages(root, one.task).items()}
        for one in status.tasks
    }
    linked = {one.task: beside[one.task] | dict(one.pages) for one in status.tasks}
    text = render("commands/status.html.j2", status=status, links=linked, told=_told)
    atomic.write(path, text, VqbetError)
    return path


def _task(root: Path, task: str) -> TaskStatus:
    reader = _Reader()
    history = reader.part(lambda: registry.history(task), list[LedgerEntry]())
    champion = reader.part(lambda: registry.champion(task), None)
    entry = history[-1] if history else None
    attempts = reader.part(lambda: Attempts(task).all, list[Attempt]())
    canaries = reader.part(lambda: Canaries(task), None)
    canary = canaries.of(entry) if canaries and entry else None
    judged = [one for one in attempts if one.outcome]
    drift, drifted = reader.part(lambda: _drift(root, task), ("", False))
    verdict = f"{judged[-1].outcome} for {judged[-1].candidate[:12]}, {judged[-1].when}" if judged else ""
    return TaskStatus(
        task,
        champion,
        entry,
        reader.part(lambda: waiting.missing(root, task), []) if judged else [],
        canary.sentence() if canary else "",
        drift,
        drifted,
        _robots(canaries, attempts),
        reader.part(lambda: _costs(root, champion, entry, attempts), None) if champion and entry else None,
        verdict,
        reader.part(lambda: links.pages(champion), dict[str, str]()) if champion else {},
        reader.wrong,
    )


def _robots(canaries: Canaries | None, attempts: Sequence[Attempt]) -> list[Robot]:
    """Return the robots, by name, with what each last proved."""
    proofs = [
        Robot(one.robot, one.digest, one.when, f"canary {one.outcome or 'under way'}")
        for one in (canaries.all if canaries else ())
        if one.robot
    ]
    proofs += [
        Robot(str(one.content["machine"]), one.candidate, one.when, f"trials: {one.outcome}")
        for one in attempts
        if one.on_robot and one.outcome
    ]
    newest = {proof.name: proof for proof in sorted(proofs, key=lambda proof: proof.when)}
    return [newest[name] for name in sorted(newest)]


def _costs(root: Path, champion: Version, entry: LedgerEntry, attempts: Sequence[Attempt]) -> Costs:
    simulated = sum(one.episodes for one in attempts if one.simulated and one.candidate == champion.digest)
    trials = recorded.behind(root, entry) if entry.evidence else None
    cost = trials.counted["cost"] if trials else {}
    return Costs(
        registry.gpu_hours(champion.name, [champion.digest]),
        float(cost.get("robot_minutes", 0.0)),
        int(cost.get("trials_spent", 0)),
        simulated,
        registry.size(champion) / 2**20,
    )


def _drift(root: Path, task: str) -> tuple[str, bool]:
    """Return the conclusion of the last comparison of demonstrations, and whether a threshold was exceeded."""
    path = Paths(root, task).artifacts / "drift" / "drift.json"
    if not path.is_file():
        return "", False
    found = artifacts.read_object(path, conclusion=str, exceeded=list)
    return str(found["conclusion"]), bool(found["exceeded"])


def _told(one: TaskStatus) -> dict[str, str]:
    """Return sentences about a task, by name; "" is its champion."""
    found = {"": "no champion"}
    if one.champion and one.entry:
        action = "FORCED WITHOUT A VERDICT" if one.entry.action == "force" else one.entry.action
        found[""] = (
            f"version {one.champion.version}, {one.champion.digest[:12]}, since {one.entry.when} by {one.entry.who} "
            f"({action}): {one.entry.why}"
        )
    elif one.entry:
        found[""] = f"no champion since {one.entry.when} by {one.entry.who}: {one.entry.why}"
    if one.verdict:
        found["verdict"] = one.verdict
    if one.waits:
        found["waits"] = "; and for ".join(one.waits)
    if one.canary:
        found["canary"] = one.canary
    if one.drift:
        found["drift"] = one.drift
    for robot in one.robots:
        found[f"robot {robot.name}"] = f"{robot.digest[:12]}, {robot.when}, {robot.how}"
    if one.costs:
        cost = one.costs
        found["costs"] = (
            f"{cost.gpu_hours:.2f} GPU hours, {cost.simulated} simulated episodes, {cost.trials} trials in "
            f"{cost.robot_minutes:.1f} robot minutes, {cost.megabytes:.1f} MiB"
        )
    if one.wrong:
        found["WRONG"] = "; ".join(one.wrong)
    return found


def _pages(root: Path, task: str) -> dict[str, Path]:
    """Return the task's pages that are there, by name."""
    paths = Paths(root, task)
    wanted = {
        "report": paths.report / "index.html",
        "demonstrations": paths.validation / "index.html",
        "drift": paths.artifacts / "drift" / "index.html",
    }
    return {name: path for name, path in wanted.items() if path.is_file()}
