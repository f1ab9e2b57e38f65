"""Number of threads that torch uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from vqbet.contract import TrainingError

VARIABLE = "VQBET_THREADS"
USUAL = 2  # as the committed results were computed: the number of threads decides the last bits of a training
MOST = 1024
LOOK_S = 0.3  # seconds over which the load of the machine is measured
TORCHS_OWN = "OMP_NUM_THREADS"


def training() -> int:
    """Return the number of threads of a training: $VQBET_THREADS, else $OMP_NUM_THREADS, else USUAL or all cores.

    Raises TrainingError if a variable is invalid.
    """
    for variable in (VARIABLE, TORCHS_OWN):
        if (value := os.environ.get(variable)) is not None:
            if not (value.isascii() and value.isdigit() and 1 <= int(value) <= MOST):
                raise TrainingError(
                    f"environment variable {variable}: expected a number from 1 to {MOST}, got {value!r}"
                )
            return int(value)
    return min(USUAL, os.cpu_count() or 1)


def reason(count: int) -> str:
    """Return a sentence on why a training uses `count` threads, and on what to change where other work is in its way.

    Measures the load of the machine for LOOK_S seconds, while this process waits.
    """
    import psutil

    cores = os.cpu_count() or 1
    busy = psutil.cpu_percent(interval=LOOK_S) / 100 * cores
    named = next((f"${variable}" for variable in (VARIABLE, TORCHS_OWN) if variable in os.environ), "")
    said = f"{count} thread{'s' * (count > 1)} of {cores} cores ({named or f'by default; ${VARIABLE} changes it'})"
    if count > 1 and busy > cores - count + 0.5:
        return (
            f"{said}; other work keeps {busy:.1f} cores busy, beside which {VARIABLE}=1 is faster, with other last bits"
        )
    return said


@contextmanager
def of(count: int) -> Iterator[None]:
    """Run torch on `count` threads: their number affects the rounding of sums and the time of a call."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
