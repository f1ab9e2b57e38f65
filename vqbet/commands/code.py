"""The hashes of a task's code, as the graph compares them. Starts fast, since every `dvc repro` begins with it."""

from __future__ import annotations

import re
from pathlib import Path

from vqbet.stages import code_version
from vqbet.stages.paths import Paths

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def run(root: Path, addressed: str) -> dict[str, str]:
    """Write the hash of each stage's code where dvc.yaml names it; return them by stage.

    addressed: a task, or code@<task>, as DVC calls the stage. Raises ConfigError where that is no task's name.
    """
    task = addressed.partition("@")[2] or addressed
    paths = Paths(root, task)
    if not NAME.fullmatch(task):
        from vqbet import config  # here, since it takes longer than all the rest

        config.task(paths.params, task)
    return code_version.write(paths.code, task)
