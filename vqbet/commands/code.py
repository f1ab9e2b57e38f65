"""Hashes of a task's code, which the graph compares. Starts fast, since every `dvc repro` begins with this command."""

from __future__ import annotations

import re
from pathlib import Path

from vqbet.stages import code_version
from vqbet.stages.paths import Paths

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def run(root: Path, addressed: str) -> dict[str, str]:
    """Write the hash of each stage's code to the file that dvc.yaml names; return the hashes by stage.

    addressed: a task, or code@<task>, DVC's name of the stage. Raises ConfigError where there is no such task.
    """
    task = addressed.partition("@")[2] or addressed
    paths = Paths(root, task)
    if not NAME.fullmatch(task):
        from vqbet import config  # imported late: it takes longer than the rest of this command

        config.task(paths.params, task)
    return code_version.write(paths.code, task)
