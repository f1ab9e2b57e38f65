"""Runner of one stage by name: opens its run in the registry, times it, and fetches the champion for the gate."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet import bundle, environment, registry, signing
from vqbet.contract import PipelineError, TrainingError
from vqbet.demos import store
from vqbet.environment import processes, threads
from vqbet.files import reading
from vqbet.registry import links
from vqbet.stages import artifacts, worktree
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.config import TaskParams

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of a training that wrote its checkpoint and ended
TRAINED = ("tokenizer", "prior")
STREAMED = (*TRAINED, "features", "bundle")  # stages that can do without data/
Run = Callable[[Paths, "TaskParams", Watch], dict[str, float]]

# In the order of the graph; a test compares it with dvc.yaml.
ORDER = ("validate", "tokenizer", "features", "prior", "bundle", "evaluate", "gate", "report")


def run(root: Path, task: str, name: str, params: TaskParams, watch: Watch, *, training: int = 0) -> dict[str, float]:
    """Run stage `name` of `task` and return its metrics. Raises PipelineError where there is no such stage.

    With $VQBET_PROCESSES above 1, the prior is trained by that many child processes, of which only the first writes.
    training: offset added to the seeds of tokenizer and prior, see `Paths`.
    """
    processes.die_with_parent()
    stage = _stage(name)
    paths, params = Paths(root, task, training), params.reseeded(training)
    arguments = ["stage", name, task, "--training", str(training)]
    if name in STREAMED:
        from vqbet.stages import streaming

        paths = streaming.of(paths)
    if name == "prior" and (code := processes.relaunch(arguments)) is not None:
        if code in STOPPED:
            raise KeyboardInterrupt
        if code:
            raise TrainingError(f"{name}@{task}: the training processes ended with exit code {code}; see above")
        return {} if processes.machine() else artifacts.read_metrics(paths.metrics(name))  # the first machine writes
    if not processes.is_main():
        with _threads(name, task, Watch()):
            return stage(paths, params, Watch())
    section = getattr(params, "validate_" if name == "validate" else name, None)
    if name == ORDER[0]:
        from vqbet.stages import preflight  # with all that any stage asks of parameters, which no other stage needs

        preflight.refuse(paths, params)
    registry.check()
    if name == "gate":
        worktree.refuse_dirty(root, f"{task}: nothing was judged", required=params.promotion.clean)
        fetch(paths)
    started = time.monotonic()
    with registry.run(
        task,
        name,
        params=section.model_dump() if section is not None else {},
        tags={
            **worktree.tags(root),
            "store": store.digest(paths.store),
            "training": str(training),
            "who": signing.who(),
            "machine": environment.machine(),
        },
    ) as record:
        links.started_by(record)
        with _threads(name, task, watch):
            metrics = stage(paths, params, replace(watch, track=record.track, note=partial(_tag, record)))
        record.finish(metrics, [paths.metrics(name)])
        record.tag("digest", _digest(paths, name))
    artifacts.write_json(paths.scratch("seconds") / f"{name}.json", round(time.monotonic() - started, 1))
    return metrics


def split(addressed: str) -> tuple[str, str]:
    """Return stage and task of DVC's name for a stage, [path/dvc.yaml:]<stage>@<task>.

    The task may be any text; `config.task` checks whether it exists. Raises PipelineError for any other form.
    """
    found = re.fullmatch(r"(?:[^@]*:)?([a-z]+)@(.+)", addressed, re.DOTALL)
    if found is None:
        raise PipelineError(f"{reading.short(addressed)}: expected <stage> <task>, or <stage>@<task>; see --help")
    return found[1], found[2]


def fetch(paths: Paths) -> None:
    """Download candidate and champion from the registry into the folders that the gate reads.

    The candidate is registered first; it receives its alias with its verdict. A task may have no champion yet.
    """
    policy = bundle.read(paths.policy)
    number = registry.register(paths.task, paths.policy, tags={"digest": policy.digest}, spec=policy.spec)
    candidate, champion = registry.resolve(f"{paths.task}/{number}"), registry.champion(paths.task)
    for name, version in (("candidate", candidate), ("champion", champion)):
        folder = paths.scratch(name)
        shutil.rmtree(folder, ignore_errors=True)
        if version is not None:
            registry.download(version, folder)


@contextmanager
def _threads(name: str, task: str, watch: Watch) -> Iterator[None]:
    """Train on the chosen number of threads, and say which; other stages play on one thread by themselves."""
    if name not in TRAINED:
        yield
        return
    count = threads.training()
    watch.say(f"{name} {task}: {threads.reason(count)}")
    with threads.of(count):
        yield


def _tag(record: registry.Run, facts: Mapping[str, str]) -> None:
    for name, value in facts.items():
        record.tag(name, value)


def _digest(paths: Paths, name: str) -> str:
    """Return the digest that tags a run: of the store it read, the bundle it made, or the policy it used."""
    if name in ("validate", "features"):
        return store.digest(paths.store)
    folder = {"tokenizer": paths.tokenizer, "prior": paths.prior}.get(name, paths.policy)
    return bundle.read(folder).digest


def _stage(name: str) -> Run:
    """Return the stage's function. Imported late, so that no stage waits for another's dependencies."""
    if name == "validate":
        from vqbet.stages.validate import run
    elif name == "tokenizer":
        from vqbet.stages.tokenizer import run
    elif name == "features":
        from vqbet.stages.features import run
    elif name == "prior":
        from vqbet.stages.prior import run
    elif name == "bundle":
        from vqbet.stages.bundle import run
    elif name == "evaluate":
        from vqbet.stages.evaluate import run
    elif name == "gate":
        from vqbet.stages.gate import run
    elif name == "report":
        from vqbet.stages.report import run
    else:
        raise PipelineError(f"no stage {name!r}; there are: {', '.join(ORDER)}")
    return run
