"""Hashes of a task's code, which the graph compares. Starts fast, since every `dvc repro` begins with this command."""

from __future__ import annotations

import re
import sys
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


def main() -> int:
    """Run for the graph, without the command line's own start, which takes as long as all of this."""
    from vqbet import environment
    from vqbet.commands import console

    def written() -> None:
        run(environment.prepare(), sys.argv[1])

    return console.guarded(written)


if __name__ == "__main__":
    sys.exit(main())
