"""Transfer of objects between this clone's cache and the default remote: `dvc push` and `dvc pull`, also over S3."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vqbet.contract import PipelineError
from vqbet.versions import objects, patience, refusals
from vqbet.versions.process import Killed, dvc


def send(root: Path, *targets: str) -> None:
    """Copy versions to the default remote. Raises PipelineError, which names bucket and cause where S3 refuses.

    Each push uses its own site cache: after a killed push, the shared cache lists objects as present in the remote that
    are not, and every later push and status relies on it.
    """
    home = root / ".vqbet"
    home.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix="push-") as private:  # mode 0700; DVC unpickles what it holds
        _run(root, ("push", *targets), {"DVC_SITE_CACHE_DIR": private})


def bring(root: Path, *targets: str) -> None:
    """Bring versions here as far as the default remote has them. Raises PipelineError as `send`."""
    _run(root, ("pull", "--allow-missing", *targets), {})


def _run(root: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    with objects.opened(root, f"dvc {arguments[0]}: the remote cannot be reached") as stores:
        address = stores.address
    if not address.startswith("s3://"):
        dvc(root, *arguments, environment=environment)
        return
    try:
        dvc(root, *arguments, environment=environment, program=(patience.__file__,))
    except Killed:
        raise
    except PipelineError as error:
        said = refusals.told(str(error))
        raise PipelineError(f"{address}: dvc {' '.join(arguments)}: {said}") if said else error from error
