"""Summary of a run of the graph, made from its output files and shown at the end of a flow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vqbet import registry, tasks, versions
from vqbet.demos import store
from vqbet.stages import artifacts, runner
from vqbet.stages.paths import Paths
from vqbet.tasks import Score, Task

SHOWN = {  # of each stage's metrics
    "validate": ("episodes", "steps"),
    "tokenizer": ("mean_error_over_std",),
    "evaluate": ("episodes",),
}


def rows(root: Path, task: str, ran: Sequence[str]) -> dict[str, str]:
    """Return two columns for the terminal. ran: names of the stages that were run now, not found unchanged."""
    paths = Paths(root, task)
    found = {name: artifacts.read_metrics(paths.metrics(name), *SHOWN.get(name, ())) for name in runner.ORDER}
    verdict = artifacts.read_object(paths.gate / "verdict.json", outcome=str, reason=str)
    films = sorted((paths.evaluation / "films").glob("*.webm"))
    champion = registry.champion(task)
    evaluated = found["evaluate"]
    return {
        "task": task,
        "demonstrations": f"{found['validate']['episodes']:.0f} episodes, {found['validate']['steps']:.0f} steps",
        "data version": f"{store.digest(paths.store)[:12]}",
        "data.dvc": f"{versions.data_version(root)[:12]}{_compared(root, 'data.dvc')}",
        "tokenizer": _tokenizer(found["tokenizer"]),
        **_played(tasks.TASKS.get(task), evaluated),
        "verdict": f"{verdict['outcome']}: {verdict['reason']}",
        "champion": f"version {champion.version}, digest {champion.digest[:12]}" if champion else "none",
        "stages run now": ", ".join(ran) or "none: nothing had changed",
        "seconds per stage": _seconds(paths),
        "lock": f"dvc.lock{_compared(root, 'dvc.lock')}",
        "open": _relative(root, paths.report / "index.html"),
        "": _relative(root, paths.validation / "index.html"),
        **({" ": _relative(root, films[0])} if films else {}),
    }


def _tokenizer(metrics: dict[str, Any]) -> str:
    used = "+".join(f"{value:.0f}" for name, value in sorted(metrics.items()) if name.startswith("codes_used"))
    return f"error {metrics['mean_error_over_std']:.3f} of a standard deviation, {used} codes in use"


def _scores(task: Task | None, metrics: dict[str, Any]) -> dict[str, str]:
    """Return the score under the task's own name and scale, and the metrics that the task shows beside it."""
    words = task.score if task else Score()
    mean, low, high = (words.top * metrics[name] for name in ("score", "score_low", "score_high"))
    value = f"{mean:.3f} ({low:.3f} to {high:.3f})"
    if words.top > 1:
        value = f"{mean:.2f} of {words.top} ({low:.2f} to {high:.2f})"
    beside = {name: f"{metrics[f'mean_{name}']:.3f}" for name in words.beside if f"mean_{name}" in metrics}
    return {words.name: f"{value}, {metrics['episodes']:.0f} episodes", **beside}


def _played(task: Task | None, metrics: dict[str, Any]) -> dict[str, str]:
    """Return the rows about the evaluation; for a task without a world about held-out episodes, if there are any."""
    if "error_policy_next" in metrics:
        beside = ", ".join(f"{name} {metrics[f'error_{name}_next']:.3f}" for name in ("linear", "nearest", "mean"))
        said = f"error {metrics['error_policy_next']:.3f} of a standard deviation ({beside})"
        return {"next action": f"{said}, {metrics['held_out']:.0f} held-out episodes"}
    if not metrics["episodes"]:
        return {}
    modes = f"{metrics['modes']:.0f} visited, entropy {metrics['mode_entropy_bits']:.2f} bits"
    return {**_scores(task, metrics), "modes": modes}


def _seconds(paths: Paths) -> str:
    notes = {name: paths.scratch("seconds") / f"{name}.json" for name in runner.ORDER}
    return ", ".join(f"{name} {artifacts.read_number(note):.0f}" for name, note in notes.items() if note.is_file())


def _compared(root: Path, name: str) -> str:
    """Return, in brackets, whether the file equals that of the last commit byte for byte."""
    same = versions.as_committed(root, name)
    if same is None:
        return " (not committed yet)"
    return (
        " (as committed)"
        if same
        else " (differs from the committed one: other code or parameters, or a processor that rounds otherwise)"
    )


def _relative(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
