"""Making sure that what was written stays written, and what to do where the disk takes no more."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REASONS = re.compile(
    "no space left|disk is full|disk full|disk I/O error|quota exceeded|file too large|file size limit", re.IGNORECASE
)
ROOM = "the disk is full, or a limit on its use is reached: free space (df -h, quota, ulimit -f), then run it again"


def advice(reason: str | OSError) -> str:
    """ROOM where an error, or what another program says of one, is about a disk that takes no more; else nothing."""
    if isinstance(reason, OSError) and reason.errno in FULL:
        return ROOM
    return ROOM if REASONS.search(str(reason)) else ""


def sync(path: Path) -> None:
    """Have the disk hold a file, or a folder's list of names, before anything that relies on it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
