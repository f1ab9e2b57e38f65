"""The child behind `repro`: one stage by DVC's own library, which tells how many stages ran; its command line does not.

Run as `python reproduce.py TARGET CHANNEL [--force]`; writes the number to the file descriptor CHANNEL.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of prctl(2)


def main(target: str, channel: int, *, force: bool) -> int:
    """Exit code 1, with DVC's reasons on standard error, outermost first, where the stage cannot be had."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if sys.platform == "linux":  # whoever asked for the stage is gone: so are we, and then the stage itself
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    logging.getLogger("dvc").setLevel(logging.WARNING)  # the stage speaks for itself
    os.set_inheritable(channel, False)  # the stage must not hold it open
    try:
        with Repo(".") as repo:
            ran = repo.reproduce(targets=[target], single_item=True, force=force)
    except DvcException as error:
        reason: BaseException | None = error
        while reason is not None:
            sys.stderr.write(f"{reason}\n")
            reason = reason.__cause__
        return 1
    os.write(channel, str(len(ran)).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), force="--force" in sys.argv[3:]))
