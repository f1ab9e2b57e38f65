"""Waiting for what takes as long as the machine is busy."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG_S = 240.0  # of a machine with other work; nothing that is well takes as long


def until(condition: Callable[[], object], timeout_s: float = LONG_S) -> None:
    """Wait for a condition; fails where it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
