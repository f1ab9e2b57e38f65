"""A new task: its demonstrations are looked at, and its section is written into params.yaml."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vqbet import config
from vqbet.commands import located
from vqbet.commands.new import findings, section
from vqbet.commands.new import simulator as worlds
from vqbet.commands.new.findings import Asked, Findings
from vqbet.contract import Channel, ConfigError
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import TASKS


def run(root: Path, task: str, asked: Asked, watch: Watch) -> Findings:
    """Write the section of `task` and return what it rests on.

    Tasks that the graph builds stay in its list where their demonstrations are here. Raises ConfigError, changing
    nothing, where the name is taken, or the data does not tell its meaning; StoreError where it cannot be read;
    WorldError where the simulator fails.
    """
    params = root / "params.yaml"
    if task in config.sections(params):
        raise ConfigError(f"{params}: has a section {task!r} already; choose another name, or remove that section")
    if task in TASKS:
        raise ConfigError(f"{task}: is a task of an installed package; choose another name")
    config.expect_name(task)
    if asked.world_kwargs and not asked.world:
        raise ConfigError("--world-kwargs: are arguments of an environment, but none is named; say --world too")
    path = _written(root, asked.path)
    with (
        located.opened(root, task, path, asked.format, watch, asked.resampling) as source,
        watch.bar(f"look {task}") as advance,
    ):
        found = findings.look(source, asked, lambda done, total: advance(done, total, {}))
    simulator = worlds.of(asked, found) if asked.world else None
    if simulator is not None:
        found.checks.extend(simulator.checks)
    keep = [name for name in config.tasks(params) if Paths(root, name).store.is_dir()]
    left = [name for name in config.tasks(params) if name not in keep]
    section.insert(params, task, section.text(task, found, path, simulator), keep=keep)
    if left:
        watch.say(f"tasks: {', '.join(left)} are not built any more: their demonstrations are not in data/")
    return found


def rows(found: Findings) -> dict[str, str]:
    """Return the findings for a table."""
    return {
        "format": found.format,
        "episodes": f"{len(found.lengths)} of {found.lengths.min()} to {found.lengths.max()} steps",
        "rate": f"{found.control_hz:g} Hz",
        "observation": _sizes(found.observation),
        "action": _sizes(found.action),
        "actions": f"{found.actions}; {found.meaning.sentence()}",
        "cameras": ", ".join(f"{name} {one.width} x {one.height}" for name, one in found.roles.cameras.items())
        or "none",
    }


def _sizes(fields: Mapping[str, Sequence[Channel]]) -> str:
    return ", ".join(f"{name} ({len(channels)})" for name, channels in fields.items())


def _written(root: Path, path: str) -> str:
    """Return a path as it stands in params.yaml: relative to the project where it lies in it, absolute else."""
    if "://" in path:
        return path
    whole = Path(path).expanduser().resolve()
    inside = whole.is_relative_to(root.resolve())
    return os.path.relpath(whole, root.resolve()) if inside else str(whole)
