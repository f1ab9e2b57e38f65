"""Differences of the working copy from the last commit: tagged on runs and versions, refused if a task asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqbet import versions
from vqbet.contract import GateError

WRITTEN_BY_RUNS = ("dvc.lock",)  # written after each stage, so it cannot be committed in time
NAMED = 10  # files listed in a sentence


def tags(root: Path) -> dict[str, str]:
    """Return the tags of runs and versions: the commit, the files that differ from it, and the md5 of data.dvc."""
    commit = versions.git_commit(root)
    return {
        "data_dvc": versions.data_version(root),
        "git_commit": commit or "none",
        "dirty": named(versions.dirty(root)) if commit else "everything: there is no commit",
    }


def named(paths: Sequence[str]) -> str:
    """Return the paths in one line; "nothing" where there is none."""
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return (", ".join(paths[:NAMED]) or "nothing") + more


def refuse_dirty(root: Path, refused: str, *, required: bool) -> None:
    """Raise GateError, beginning with `refused`, where the working copy differs from the last commit.

    required: promotion.clean of the task; False skips the check. `dvc.lock` may differ, since every run writes it. A
    project without a commit is refused.
    """
    if not required:
        return
    if not versions.git_commit(root):
        raise GateError(f"{refused}: promotion.clean asks for a commit, and {root} has none; commit, then try again")
    differing = [path for path in versions.dirty(root) if path not in WRITTEN_BY_RUNS]
    if differing:
        raise GateError(
            f"{refused}: promotion.clean asks for a working copy as committed, but {named(differing)} "
            f"{'differs' if len(differing) == 1 else 'differ'} from the last commit; commit or restore, then try again"
        )
