"""Fuzzer of edited files: each mutant must end in an error message or be valid, none in a traceback.

    python -m bench.fuzz [--params 1000] [--artefacts 500] [--references 200] [--seed 0] [--budget-s 0]

params.yaml is read, and used for everything short of training. Artefacts go through register, report and summary, with
a stand-in for the registry. References go to an empty registry in a temporary folder. Prints the number of mutants by
outcome, and the first failures of each kind. Exits with 1 after a failure: a traceback, a hang (10 s of work), or an
accepted file whose values are not finite or out of bounds.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from bench import made_project, mutants
from vqbet import config, registry
from vqbet.contract import VqbetError

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S, WAIT_S = 10.0, 120.0  # limits of one mutant: processor time, wall-clock time
LONGEST, LARGEST = 4000, 1e12  # characters of an error message; largest accepted number
KINDS = ("params", "artefacts", "references")
Found = dict[str, Counter[str]]


class Hang(BaseException):
    """Raised after LIMIT_S or WAIT_S. Not an Exception, so that `except Exception` does not catch it."""


class Wrong(Exception):
    """Raised where an invalid file was accepted."""


@contextmanager
def within(work_s: float, wait_s: float) -> Iterator[None]:
    """Raise Hang inside the block after `work_s` of processor time or `wait_s` on the clock. Main thread only.

    Processor time limits the work of a mutant, which other programs on a busy machine do not lengthen.
    """

    def over(number: int, frame: FrameType | None) -> None:
        raise Hang

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, work_s), (signal.SIGALRM, signal.ITIMER_REAL, wait_s))
    before = [signal.signal(number, over) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def outcome(act: Callable[[], None]) -> tuple[str, str]:
    """Return the outcome of a mutant, and the details of a failure."""
    try:
        with within(LIMIT_S, WAIT_S):
            act()
    except VqbetError as error:
        return ("sentence", "") if len(str(error)) <= LONGEST else ("too long", str(error)[:200])
    except Hang:
        return "hang", traceback.format_exc()[-1500:]
    except Wrong as error:
        return "wrong", str(error)
    except Exception:
        return "traceback", traceback.format_exc()[-1500:]
    return "accepted", ""


def params(rng: random.Random, folder: Path) -> Callable[[], None]:
    """Make a mutant of params.yaml or of the comparison's parameters; return a function that reads it."""
    whole, own = ROOT / "params.yaml", ROOT / "vqbet" / "comparison" / "params.yaml"
    kind, path = rng.choices(("small", "whole", "own"), (6, 2, 2))[0], folder / "params.yaml"
    path.write_bytes(
        mutants.of_yaml(rng, small() if kind == "small" else (own if kind == "own" else whole).read_bytes())
    )
    return (lambda: compared(whole, path)) if kind == "own" else lambda: used(path)


def used(path: Path) -> None:
    """Read params.yaml as every command does, and use it without training. Raises Wrong, VqbetError."""
    from tests.support.synthetic import synthetic
    from vqbet.stages import gate, prior

    for name in config.tasks(path):
        task = config.task(path, name)
        finite(task.model_dump(by_alias=True))
        if type(task).model_validate(task.model_dump(by_alias=True)) != task:
            raise Wrong(f"{name} is not what was written")
        prior.recipe(task.prior)
        gate.make_plan(name, task, synthetic(1), {"candidate": "c" * 64})


def compared(project: Path, own: Path) -> None:
    """Read the comparison's parameters, and use them without training. Raises Wrong, VqbetError."""
    from vqbet.comparison import grid, params

    chosen = params.read(project, own=own)
    finite(chosen.paper.model_dump())
    for cell in grid.plan(chosen.paper)[:40]:
        finite(grid.resolved(chosen, cell))


def finite(value: Any, where: str = "") -> None:
    """Raise Wrong if a value contains a number that is not finite or larger than LARGEST."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            finite(part, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for part in value:
            finite(part, where)
    elif isinstance(value, (int, float)) and not (math.isfinite(value) and abs(value) <= LARGEST):
        raise Wrong(f"{where}: {value!r} was accepted")


def small() -> bytes:
    """Return the shipped params.yaml with one task only, which is read five times as fast."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    return text.split("\npusht:\n", 1)[0].encode()


def artefacts(rng: random.Random, project: made_project.Made) -> Callable[[], None]:
    """Mutate one output of a stage and return a function that reads the outputs. The next call restores the file."""
    project.restore()
    path = rng.choice(project.files)
    before = path.read_bytes()
    path.write_bytes(mutants.of_json(rng, before))
    whole = path.parent.name in ("tokenizer", "policy") or path.name == "verdict.json"  # covered by digest or replay
    sealed = whole and path.read_bytes() != before

    def act() -> None:
        project.use(path)
        if sealed:
            raise Wrong(f"{path.relative_to(project.root)} was changed, and accepted")

    return act


def references(rng: random.Random, root: Path) -> Callable[[], None]:
    """Return a function that passes an odd word where a version, an id, a time, a stage or a task is expected."""
    from vqbet.commands import release
    from vqbet.stages import runner, verdicts

    ways: list[tuple[str, Callable[[str], object]]] = [
        ("blockpush@champion", registry.resolve),
        ("blockpush/3", registry.resolve),
        ("0123456789ab", lambda word: verdicts.replay(root, word)),
        ("2026-05-01T14:30", lambda word: release.history("blockpush", word)),
        ("validate@blockpush", runner.split),
        ("blockpush", lambda word: config.task(ROOT / "params.yaml", word)),
    ]
    word, read = rng.choice(ways)
    odd = mutants.of_words(rng, word)
    return lambda: (read(odd), None)[1]


def run(counts: Mapping[str, int], *, seed: int, budget_s: float, folder: Path) -> tuple[Found, list[str]]:
    """Return the outcomes counted by kind of mutant, and the first failures of each kind.

    A kind ends early once its share of the budget is used (0: never), so that a slow machine tries fewer mutants.
    """
    found: Found = {kind: Counter() for kind in counts}
    failures: list[str] = []
    if counts.get("references"):
        registry.history("blockpush")  # creates the registry, which takes longer than LIMIT_S
    with made_project.standing_in(folder) as project:
        makers: dict[str, Callable[[random.Random], Callable[[], None]]] = {
            "params": lambda rng: params(rng, folder),
            "artefacts": lambda rng: artefacts(rng, project),
            "references": lambda rng: references(rng, folder),
        }
        for kind, count in counts.items():
            until = time.monotonic() + budget_s / len(counts)
            for number in range(count):
                if budget_s and time.monotonic() > until:
                    break
                act = makers[kind](random.Random(f"{seed} {kind} {number}"))
                ended, detail = outcome(act)
                found[kind][ended] += 1
                if detail and found[kind][ended] <= 3:
                    failures.append(f"{kind} {number}: {ended}: {detail}")
    return found, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for kind, count in zip(KINDS, (1000, 500, 200), strict=True):
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget-s", type=float, default=0.0)
    chosen = parser.parse_args()
    counts = {kind: getattr(chosen, kind) for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/.vqbet/mlflow.db"
        found, failures = run(counts, seed=chosen.seed, budget_s=chosen.budget_s, folder=Path(folder))
    for kind, ended in found.items():
        print(f"{kind}: {sum(ended.values())} mutants: " + ", ".join(f"{ended[name]} {name}" for name in sorted(ended)))
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
