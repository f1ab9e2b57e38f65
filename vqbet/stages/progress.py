"""Outputs of a running stage beside its files: named progress bars, metrics by step, sentences, facts about the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from vqbet.contract import Advance, Tracker


def _ignore(_step: int, _metrics: Mapping[str, float]) -> None:
    return


def _unnoted(_facts: Mapping[str, str]) -> None:
    return


def _no_bar(_label: str) -> AbstractContextManager[Advance]:
    return nullcontext(lambda _done, _total, _numbers: None)


@dataclass(frozen=True)
class Watch:
    """Callbacks that the caller of a stage passes to it. The defaults do nothing."""

    track: Tracker = _ignore
    bar: Callable[[str], AbstractContextManager[Advance]] = _no_bar
    say: Callable[[str], None] = lambda _sentence: None
    note: Callable[[Mapping[str, str]], None] = _unnoted  # facts about this run, by name, that belong into no output
