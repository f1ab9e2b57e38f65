"""Merge of dvc.lock by stages, in the clones of runs: `python -m vqbet.team.lock_merge BASE OURS THEIRS`, run by git.

git merges lines, and two tasks whose first runs work side by side both add the file. The result goes into OURS. Exit
code 1, and OURS as it was, where both sides changed one stage: a person decides.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

NAME, ATTRIBUTES = "dvclock", "dvc.lock merge=dvclock\n"
STAGE = re.compile(r"^  (?=\S)", re.MULTILINE)  # a stage begins two columns in, its content further in


class StageConflictError(Exception):
    """Both sides changed one stage."""


def merged(base: str, ours: str, theirs: str) -> str:
    """Return `ours` with the stages that `theirs` has changed since `base`. Raises StageConflictError."""
    (_, before), (head, mine), (other_head, other) = map(_split, (base, ours, theirs))
    found = {}
    for name in {**mine, **other}:
        was, here, there = before.get(name), mine.get(name), other.get(name)
        if was != here != there != was:
            raise StageConflictError(name)
        if chosen := there if here == was else here:
            found[name] = chosen
    return (head or other_head) + "".join(found.values())


def _split(text: str) -> tuple[str, dict[str, str]]:
    """Return what is before the first stage, and the text of each stage by its name."""
    head, *stages = STAGE.split(text if text.endswith("\n") or not text else f"{text}\n")
    return head, {stage.partition(":\n")[0]: f"  {stage}" for stage in stages}


def main(base: str, ours: str, theirs: str) -> int:
    try:
        text = merged(*(Path(name).read_text(encoding="utf-8") for name in (base, ours, theirs)))
    except StageConflictError:
        return 1
    Path(ours).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
