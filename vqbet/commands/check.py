"""Check of a task's parameters, data and world before anything is trained: `vqbet check`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vqbet import config
from vqbet.commands import plan
from vqbet.config import TaskParams
from vqbet.contract import ConfigError, Demonstrations, GateError, StoreError
from vqbet.stages import preflight
from vqbet.stages.paths import Paths

NOTHING = "nothing is wrong"


def run(root: Path, task: str) -> list[str]:
    """Return a sentence for each fault: first those that would stop the graph, then those that would only waste data.

    Nothing is trained or played. Unreadable parameters are the only fault returned, since all else depends on them.
    """
    paths = Paths(root, task)
    try:
        params = config.task(paths.params, task)
    except ConfigError as error:
        return [str(error)]
    found = [str(error) for error in preflight.wrong(paths, params)]
    try:
        demos = preflight.read(paths)
    except StoreError:
        return found
    return found + list(_wasted(task, params, demos)) + list(_powerless(root, task, params, demos))


def _wasted(task: str, params: TaskParams, demos: Demonstrations) -> Iterator[str]:
    """Yield a sentence for data that the limits of validation would refuse, or that training could not use."""
    shortest, longest = int(demos.lengths.min()), int(demos.lengths.max())
    limits, chunk = params.validate_, params.tokenizer.chunk
    if shortest < limits.min_steps:
        yield f"{task}.validate.min_steps: {limits.min_steps}, but an episode has {shortest}"
    if longest > limits.max_steps:
        yield f"{task}.validate.max_steps: {limits.max_steps}, but an episode has {longest}"
    short = int((demos.lengths < chunk).sum())
    if short and chunk <= longest:
        yield (
            f"{task}.tokenizer.chunk: {chunk} actions, but {short} of {len(demos.lengths)} episodes are shorter and "
            "teach nothing; use a shorter chunk"
        )


def _powerless(root: Path, task: str, params: TaskParams, demos: Demonstrations) -> Iterator[str]:
    """Yield a sentence where the gate's last look has too little power. An invalid plan was reported before."""
    with suppress(GateError):
        if sentence := plan.powerless(root, task, plan.made(root, task, params, demos)):
            yield f"{task}.gate.{sentence}"
