"""Terminal output: progress bars, sentences, and errors without a traceback."""

from __future__ import annotations

import errno
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vqbet.commands import unanswered
from vqbet.files import atomic

if TYPE_CHECKING:
    from vqbet.stages.progress import Advance, Watch

QUIET_S = 10.0  # without a terminal, the least time between two lines
INTERRUPTED = 130
NO_MEMORY = re.compile("cannot allocate memory|can't allocate memory|CUDA out of memory", re.IGNORECASE)
SHOWN = (
    "loss",
    "reconstruction",
    "accuracy_0",
    "accuracy_1",
    "samples_per_s",
    "success",
)  # beside a bar; the run has all


def say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def ask(question: str, answers: Sequence[str]) -> str:
    """Return the answer that a person chooses at the terminal."""
    import click

    for number, answer in enumerate(answers, start=1):
        say(f"  {number}  {answer}")
    return answers[click.prompt(question, type=click.IntRange(1, len(answers))) - 1]


@contextmanager
def bar(label: str) -> Iterator[Advance]:
    """Show a live progress bar with numbers on a terminal; elsewhere print at most one line per `QUIET_S` seconds."""
    with _live(label) if sys.stdout.isatty() else _lines(label) as advance:
        yield advance


@contextmanager
def _live(label: str) -> Iterator[Advance]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(label, total=None, numbers="")

        def advance(done: int, total: int, numbers: Mapping[str, float]) -> None:
            progress.update(task, completed=done, total=total, numbers=_written(numbers))

        yield advance


@contextmanager
def _lines(label: str) -> Iterator[Advance]:
    started = last = time.monotonic()
    ended = False

    def advance(done: int, total: int, numbers: Mapping[str, float]) -> None:
        nonlocal last, ended
        now = time.monotonic()
        if ended:
            return
        ended = done >= total
        if ended or now - last >= QUIET_S:
            last = now
            left = (now - started) * (total - done) / max(done, 1)
            say(f"{label}: {done}/{total}  {now - started:.0f} s, {left:.0f} s left  {_written(numbers)}".rstrip())

    yield advance


def _written(numbers: Mapping[str, float]) -> str:
    shown = [name for name in SHOWN if name in numbers]
    return "  ".join(f"{name} {numbers[name]:.4g}" for name in shown)


def guarded(command: Callable[[], None]) -> int:
    """Run a command and return its exit code. An error that the user can fix is printed as one sentence on stderr."""
    try:
        command()
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as end:  # raised by the command line, for Ctrl-C too
        if end.code != INTERRUPTED:
            raise
        return _interrupted()
    except Exception as error:
        sentence = _mendable(error)
        if not sentence:
            raise
        sys.stderr.write(f"error: {sentence}\n")
        return 1
    return 0


def _interrupted() -> int:
    sys.stderr.write("stopped. What was finished is kept; the same command goes on from there.\n")
    return INTERRUPTED


def _mendable(error: Exception) -> str:
    """Return the message for an error that the user can fix; "" for a bug, which needs its traceback."""
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        return "out of memory: close other programs, lower batch or VQBET_WORKERS, or raise `ulimit -v`; run it again"
    if isinstance(error, OSError) and error.errno in (*atomic.FULL, errno.EROFS, errno.EACCES):
        advice = atomic.advice(error) or "give this user write access, then run it again"
        return f"{error.filename or 'a file'}: {error.strerror}; {advice}"
    from vqbet.contract import VqbetError  # imported late, so that `--help` does not wait for numpy

    if not isinstance(error, VqbetError):
        return ""
    return f"{error}; {unanswered.ADVICE}" if unanswered.by_server(error) else str(error)


def watch() -> Watch:
    """Return a Watch that shows bars and sentences on this terminal and ignores metrics."""
    from vqbet.stages.progress import Watch

    return Watch(bar=bar, say=say)


def table(rows: Mapping[str, str]) -> None:
    """Print rows as two aligned columns."""
    width = max((len(name) for name in rows), default=0)
    for name, value in rows.items():
        say(f"  {name:<{width}}  {value}")
