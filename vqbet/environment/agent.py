"""Launcher of a training's processes, by torchrun or `accelerate launch`: `python -m vqbet.environment.agent`."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence

from vqbet.environment.processes import die_with_parent


def agent(argv: Sequence[str]) -> int:
    """Run torchrun without its tracebacks, since its processes report their own errors; return the exit code.

    With --accelerate as the first argument `accelerate launch` runs it, which adds what its configuration says.
    """
    die_with_parent()
    import logging

    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.getLogger("torch").setLevel(logging.CRITICAL)
    if not torch.cuda.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"
    try:
        if argv[0] == "--accelerate":
            sys.argv[1:] = argv[1:]
            runpy.run_module("accelerate.commands.launch", run_name="__main__")
        else:
            torchrun(list(argv))
    except ChildFailedError as error:
        return max(1, error.get_first_failure()[1].exitcode)
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(agent(sys.argv[1:]))
