"""Waiting for conditions whose time depends on the load of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG_S = 240.0  # of a machine with other work; nothing that is well takes as long


def until(condition: Callable[[], object], timeout_s: float = LONG_S) -> None:
    """Wait for a condition, and fail if it is not true within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
