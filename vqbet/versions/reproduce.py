"""Child process of `repro` and `changed`, which runs single stages through DVC's library and reports which ran.

Run as `python reproduce.py QUESTION CHANNEL`; writes a JSON list of stages to the file descriptor CHANNEL. QUESTION is
JSON: `first`, stages to bring up to date before anything else, and either `reproduce`, stages to bring up to date
(`force`: even if nothing changed; the answer lists those that ran), or `compare` (the answer lists those that changed).
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1  # of prctl(2)


def main(question: dict[str, Any], channel: int) -> int:
    """Answer `question` on `channel`, or write DVC's errors to stderr, outermost first; return the exit code."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if sys.platform == "linux":  # end with the parent; the stage ends with us
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    logging.getLogger("dvc").setLevel(logging.WARNING)  # the stage prints its own output
    os.set_inheritable(channel, False)  # the stage must not hold it open
    try:
        with Repo(".") as repo:
            if question["first"]:
                repo.reproduce(targets=question["first"], single_item=True)
            if "compare" in question:
                found = sorted(repo.status(targets=question["compare"]))
            else:
                ran = repo.reproduce(targets=question["reproduce"], single_item=True, force=question["force"])
                found = [stage.addressing for stage in ran]
    except DvcException as error:
        reason: BaseException | None = error
        while reason is not None:
            sys.stderr.write(f"{reason}\n")
            reason = reason.__cause__
        return 1
    os.write(channel, json.dumps(found).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), int(sys.argv[2])))
