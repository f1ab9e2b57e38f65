"""Badly edited files, by the thousand: each ends in a sentence or is accepted for a reason, none in a traceback.

    python -m bench.fuzz [--params 1000] [--artefacts 500] [--references 200] [--seed 0] [--budget-s 0]

params.yaml is read, and used as far as nothing is trained; artefacts go through register, report and summary, with the
registry replaced by a stand-in; references go to an empty registry in a temporary folder. Prints how often each ended
how, and the first of every kind of failure; exits with 1 where there was one: a traceback, a hang (10 s of work), or an
accepted file whose values are not finite and within bounds.
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
LIMIT_S, WAIT_S = 10.0, 120.0  # of one mutant: of work, and on the clock
LONGEST, LARGEST = 4000, 1e12  # characters of a sentence; any accepted number
KINDS = ("params", "artefacts", "references")
Found = dict[str, Counter[str]]


class Hang(BaseException):
    """Longer than LIMIT_S or WAIT_S. Not an Exception, so that nothing takes it for one of its own."""


class Wrong(Exception):
    """Accepted, and should not have been."""


@contextmanager
def within(work_s: float, wait_s: float) -> Iterator[None]:
    """Raises Hang from within the block after so much time of the processor, or on the clock. In the main thread.

    Two clocks, since what a mutant costs is work, which other programs on a busy machine do not lengthen.
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
    """How a mutant ended, and what of it is worth a look."""
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
    """A mutant of params.yaml or of the comparison's, and what reads it."""
    whole, own = ROOT / "params.yaml", ROOT / "vqbet" / "comparison" / "params.yaml"
    kind, path = rng.choices(("small", "whole", "own"), (6, 2, 2))[0], folder / "params.yaml"
    path.write_bytes(
        mutants.of_yaml(rng, small() if kind == "small" else (own if kind == "own" else whole).read_bytes())
    )
    return (lambda: compared(whole, path)) if kind == "own" else lambda: used(path)


def used(path: Path) -> None:
    """Read params.yaml as every command does, and use it as far as nothing is trained. Raises Wrong, VqbetError."""
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
    """Read the comparison's parameters, and use them as far as nothing is trained. Raises Wrong, VqbetError."""
    from vqbet.comparison import grid, params

    chosen = params.read(project, own=own)
    finite(chosen.paper.model_dump())
    for cell in grid.plan(chosen.paper)[:40]:
        finite(grid.resolved(chosen, cell))


def finite(value: Any, where: str = "") -> None:
    """Raises Wrong for a number that is not finite or larger than LARGEST, anywhere in a value."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            finite(part, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for part in value:
            finite(part, where)
    elif isinstance(value, (int, float)) and not (math.isfinite(value) and abs(value) <= LARGEST):
        raise Wrong(f"{where}: {value!r} was accepted")


def small() -> bytes:
    """The shipped file with one task, which is read five times as fast."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    return text.split("\npusht:\n", 1)[0].encode()


def artefacts(rng: random.Random, project: made_project.Made) -> Callable[[], None]:
    """A mutant of one file that a stage left, and what reads those files; the file is put back before the next."""
    project.restore()
    path = rng.choice(project.files)
    before = path.read_bytes()
    path.write_bytes(mutants.of_json(rng, before))
    whole = path.parent.name in ("tokenizer", "policy") or path.name == "verdict.json"  # a digest or a replay covers it
    sealed = whole and path.read_bytes() != before

    def act() -> None:
        project.use(path)
        if sealed:
            raise Wrong(f"{path.relative_to(project.root)} was changed, and accepted")

    return act


def references(rng: random.Random, root: Path) -> Callable[[], None]:
    """An odd word where a version, the beginning of an id, a moment or a stage is expected."""
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
    """How often each kind of mutant ended how, and the first of each kind of failure.

    A kind ends early once its share of the budget is used (0: never), so that a slow machine tries fewer.
    """
    found: Found = {kind: Counter() for kind in counts}
    failures: list[str] = []
    if counts.get("references"):
        registry.history("blockpush")  # makes the registry, which takes longer than any mutant may
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
