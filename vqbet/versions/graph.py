"""Read-only comparison of stage outputs with dvc.lock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vqbet.contract import PipelineError


def unmade(root: Path, stages: Sequence[str]) -> list[str]:
    """Return the outputs of `stages` (such as "gate@blockpush") that differ from dvc.lock, as "<path> (<status>)".

    Raises PipelineError if DVC knows no such stage, or dvc.lock cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    found: list[str] = []
    try:
        with Repo(str(root)) as repo, repo.lock:
            for name in stages:
                for out in repo.stage.load_one(path="dvc.yaml", name=name).outs:
                    status = out.workspace_status() if out.hash_info else {str(out): "not in dvc.lock"}
                    found += [f"{path} ({what})" for path, what in sorted(status.items())]
    except (DvcException, OSError) as error:
        reason = " ".join(str(error).split())
        raise PipelineError(f"{root}: cannot compare {', '.join(stages)} with dvc.lock: {reason}") from error
    return found
