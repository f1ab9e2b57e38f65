"""Check that data/ may get a new version: it needs a git repository, and every store of the present version."""

from __future__ import annotations

from pathlib import Path

from vqbet import config, versions
from vqbet.contract import PipelineError
from vqbet.tasks import TASKS

SUFFIX = ".zarr"


def check(root: Path, task: str) -> list[str]:
    """Raise PipelineError where DVC could not version data/, or where the new version would silently lose a store.

    A project without DVC is not checked. The store of `task` itself may be missing, since it is being ingested. Returns
    the missing stores that the new version leaves out: an oracle makes them again, and the graph does not build them.
    """
    if not (root / ".dvc").is_dir():
        return []
    if not versions.tracked(root):
        raise PipelineError(
            f"{root}: is not in a git repository, and DVC versions data/ only in one: run `git init` there, then the "
            "same command again (git must be installed)"
        )
    here = {path.name for path in (root / "data").glob(f"*{SUFFIX}") if path.is_dir()}
    absent = sorted(set(versions.stores(root)) - here - {f"{task}{SUFFIX}"})
    missing = [store for store in absent if not _made_again(root, store.removesuffix(SUFFIX))]
    if missing:
        raise PipelineError(
            f"{root / 'data'}: lacks {', '.join(missing)}, which the present version of data/ has; with {task} alone "
            f"the next version would lose it. Nothing was done; {_remedy(missing)}, then run the same command again. "
            "To leave it out for good, delete data.dvc first"
        )
    return absent


def _made_again(root: Path, name: str) -> bool:
    """Return whether an oracle makes a task's demonstrations, and the graph does not build the task."""
    params, known = root / "params.yaml", TASKS.get(name)
    return bool(known and known.oracle and params.is_file() and name not in config.tasks(params))


def _remedy(missing: list[str]) -> str:
    """Return the ways to restore the missing stores. A fresh clone has no remote to pull from until one is added."""
    names = [name.removesuffix(SUFFIX) for name in missing]
    scripted = {name for name in names if (task := TASKS.get(name)) and task.oracle}
    ways = [f"make it again with `vqbet ingest {name}`" for name in names if name in scripted]
    ways += [f"import it again with `vqbet ingest {name} <path or URL>`" for name in names if name not in scripted]
    ways += ["where DVC's remote holds it, bring it back with `dvc pull data.dvc`"]
    return " or ".join(ways)
