"""The section of a task as text, and its place in params.yaml."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vqbet import config
from vqbet.commands.new.findings import Findings
from vqbet.commands.new.simulator import Simulator
from vqbet.contract import Channel, ConfigError
from vqbet.files import atomic

CHUNK_S = 0.4  # seconds that a chunk lasts, within
CHUNKS = (4, 16)
FEW = 3  # action channels up to which the default tokenizer does
TASKS = re.compile(r"^tasks:[ \t]*\[(?P<names>[^\]]*)\]", re.MULTILINE)
BLOCK = re.compile(r"^tasks:[^\n\[]*\n(?P<names>(?:[ \t]*- [^\n]*\n)+)", re.MULTILINE)
BLIND = ("    width: 96", "    batch: 128", "    steps: 2500", "    warmup: 150")  # of a prior
SEEING = (
    "    encoder: {<<: *encoder}",
    "    batch: 64",
    "    steps: 4000",
    "    lr: 1.0e-3",
    "    warmup: 200",
    "    ema: 0.995",
    '    supervise: "last"',
)
ANCHORS = (
    "demos",
    "validate",
    "tokenizer",
    "prior",
    "encoder",
    "bundle",
    "evaluate",
    "gate",
    "promotion",
    "canary",
    "drift",
    "trials",
)


def text(task: str, found: Findings, path: str, simulator: Simulator | None = None) -> str:
    """Return the section of a task with a simulator or none, with what a person should check as comments."""
    lines = [f"{task}:  # written by `vqbet new`; please check:"]
    lines += [f"  # - {' '.join(check.split())}" for check in found.checks]  # a line feed would end the comment
    lines += [
        "  source:",
        f"    path: {_quoted(path)}",
        f"    format: {found.format}",
        f"    control_hz: {found.control_hz!r}",
        f"    actions: {found.actions}  # {found.meaning.sentence()}",
        '    frame: ""',
        *_fields("observation", found.observation),
        *_fields("action", found.action),
    ]
    if found.roles.cameras:
        lines.append("    cameras:")
        for name, one in found.roles.cameras.items():
            lossy = f", lossy: {_quoted(one.lossy)}" if one.lossy else ""
            size = f"height: {one.height}, width: {one.width}"
            lines.append(f"      {name}: {{field: {_quoted(one.field)}, {size}{lossy}}}")
    if any("left out" in check for check in found.roles.checks):
        lines.append("    incomplete: leave_out")
    if found.resampling is not None:
        nearest = ", ".join(_quoted(name) for name in sorted(found.resampling.nearest))
        gap = found.resampling.largest_gap_s
        lines.append(f"    resample: {{nearest: [{nearest}], largest_gap_s: {gap!r}}}  # to steps of control_hz")
    return "\n".join([*lines, *_recipe(found, simulator)]) + "\n"


def _recipe(found: Findings, simulator: Simulator | None) -> list[str]:
    """Return the sections of the stages: a small recipe for this rate and this number of action channels."""
    chunk = int(np.clip(round(CHUNK_S * found.control_hz), *CHUNKS))
    chunk = max(1, min(chunk, int(found.lengths.max())))
    width = sum(len(channels) for channels in found.action.values())
    success = "" if found.labelled else ", min_success: 0.0"
    codes = ["    codes: 32"] if width > FEW else []
    health = "{max_mean_error: 0.6, max_p99_error: 3.0, min_used: 0.25}"
    if width <= FEW:
        health = "{max_mean_error: 0.3, max_p99_error: 1.5, min_used: 0.5}"
    shortest, longest = int(found.lengths.min()), int(found.lengths.max())
    return [
        "  demos: {<<: *demos, held_out: 0.1}",
        f"  validate: {{<<: *validate, min_steps: {max(1, shortest // 2)}, max_steps: {2 * longest}{success}}}",
        "  tokenizer:",
        "    <<: *tokenizer",
        f"    chunk: {chunk}",
        *codes,
        f"    health: {health}",
        "  prior:",
        "    <<: *prior",
        *(SEEING if found.roles.cameras else BLIND),
        '  bundle: {<<: *bundle, execute: "chunk"}',
        *(_world(simulator) if simulator else ["  evaluate: {<<: *evaluate}"]),
        "  gate:",
        "    <<: *gate",
        *(['    baselines: ["noop"]'] if simulator else ['    evidence: ["robot"]', "    baselines: []"]),
        "    slices: {all: {share: 1.0}}",
        "  promotion: {<<: *promotion}",
        "  canary: {<<: *canary}",
        "  drift: {<<: *drift}",
        "  trials: {<<: *trials, rubric: {nothing: 0.0, done: 1.0}}",
    ]


def _world(simulator: Simulator) -> list[str]:
    def mapped(places: Mapping[str, str]) -> str:
        return ", ".join(f"{_quoted(name)}: {_quoted(path)}" for name, path in places.items())

    return [
        "  evaluate:",
        "    <<: *evaluate",
        "    world:",
        f"      gymnasium: {_quoted(simulator.id)}",
        *([f"      kwargs: {json.dumps(dict(simulator.kwargs), ensure_ascii=False)}"] if simulator.kwargs else []),
        f"      observation: {{{mapped(simulator.observation)}}}",
        *([f"      cameras: {{{mapped(simulator.cameras)}}}"] if simulator.cameras else []),
        f"      success: {_quoted(simulator.success)}",
        f"      max_steps: {simulator.max_steps}",
    ]


def _fields(side: str, fields: dict[str, list[Channel]]) -> list[str]:
    lines = [f"    {side}:"]
    for name, channels in fields.items():
        lines.append(f"      {_quoted(name)}:")
        lines += [
            f"        - [{_quoted(one.name)}, {_quoted(one.unit)}, {one.low!r}, {one.high!r}]" for one in channels
        ]
    return lines


def _quoted(word: str) -> str:
    """Return a text as YAML, in quotes, which YAML reads as JSON does."""
    return json.dumps(word, ensure_ascii=False)


def insert(path: Path, task: str, section: str, *, keep: Sequence[str]) -> None:
    """Append a section to params.yaml and let the graph build the task, beside those of `keep`.

    Raises ConfigError, changing nothing, where the file is not as the project's own or the section does not fit it.
    """
    before = path.read_text(encoding="utf-8")
    names = [*(name for name in keep if name != task), task]
    match = TASKS.search(before) or BLOCK.search(before)
    if match is None:
        raise ConfigError(f"{path}: has no list `tasks: [...]` at its beginning of a line; add one")
    listed = f"tasks: [{', '.join(names)}]" + ("\n" if match.re is BLOCK else "")
    missing = [name for name in ANCHORS if not re.search(rf"&{name}\b", before)]
    if missing:
        raise ConfigError(f"{path}: has no defaults &{', &'.join(missing)}, which the section begins with")
    after = before[: match.start()] + listed + before[match.end() :].rstrip("\n") + "\n\n" + section
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch) / path.name
        staged.write_text(after, encoding="utf-8")
        config.task(staged, task)
        config.tasks(staged)
    atomic.write(path, after, ConfigError)
