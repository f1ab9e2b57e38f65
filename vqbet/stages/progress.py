"""What a running stage shows and sends: a progress bar by name, numbers by step, a sentence now and then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from vqbet.contract import Advance, Tracker


def _ignore(_step: int, _metrics: Mapping[str, float]) -> None:
    return


def _no_bar(_label: str) -> AbstractContextManager[Advance]:
    return nullcontext(lambda _done, _total, _numbers: None)


@dataclass(frozen=True)
class Watch:
    """Handed to every stage by whoever runs it. The default watches nothing."""

    track: Tracker = _ignore
    bar: Callable[[str], AbstractContextManager[Advance]] = _no_bar
    say: Callable[[str], None] = lambda _sentence: None
