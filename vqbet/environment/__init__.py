"""Environment variables of embedded mode: paths and disabled telemetry, set before heavy packages are imported.

Team mode is the same code with some of these variables set beforehand (a Prefect API, an MLflow server): variables that
are already set are kept. The exception is telemetry, which is always disabled.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

SILENCE = {
    "DO_NOT_TRACK": "true",  # MLflow accepts only this value, Prefect accepts it too
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
}


def embedded(root: Path) -> dict[str, str]:
    """Return the default variables of a project at `root`: all data under root/.vqbet, no server, no network."""
    home = root / ".vqbet"
    return {
        "VQBET_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "prefect-ui"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # the default 20 s is too short on a first run
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}",
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),  # of torch.compile; the default is a folder in /tmp
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "SDL_VIDEODRIVER": "dummy",
        "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    }


def prepare(root: Path | None = None) -> Path:
    """Set the environment of this process (and of its children) for the project at `root` and return the root.

    root: by default the nearest folder at or above the working directory that holds params.yaml. Creates root/.vqbet,
    accessible to this user only.
    """
    root = (root or find_root()).resolve()
    os.environ.update(SILENCE)
    os.environ["VQBET_PROJECT"] = str(root)  # the repository with the committed trust file
    for name, value in embedded(root).items():
        os.environ.setdefault(name, value)
    for folder in (root / ".vqbet", root / ".vqbet" / "dvc-site"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _close(folder)
    return root


def _close(folder: Path) -> None:
    """Remove other users' access to `folder`, which holds registry, evidence and approvals, if this user owns it.

    Raises OSError if the file system refuses.
    """
    status = folder.stat()
    if status.st_uid == os.getuid() and status.st_mode & 0o077:
        folder.chmod(0o700)


def processor() -> str:
    """Return the processor's name and the number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def machine() -> str:
    """Return the processor and library versions, which determine rounding. Does not import the libraries."""
    made_with = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy"))
    return f"{processor()}, {platform.system()}, Python {platform.python_version()}, {made_with}"


def find_root() -> Path:
    """Return the nearest folder at or above the working directory with a params.yaml, else the working directory."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "params.yaml").is_file()), here)
