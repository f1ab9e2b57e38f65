"""The environment file, which a shell sources to work with the team's servers."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from vqbet.contract import TeamError
from vqbet.files import atomic
from vqbet.team import database, objects
from vqbet.team.place import Place
from vqbet.team.settings import HOST, Settings

HEAD = "# Environment of a team, for this user alone: it holds credentials.  . {path}\n"


def variables(place: Place, settings: Settings) -> dict[str, str]:
    """Return the variables of team mode for the servers of this machine."""
    return {
        "PREFECT_API_URL": f"http://{HOST}:{settings.ports['prefect']}/api",
        "PREFECT_API_AUTH_STRING": f"vqbet:{settings.secrets['prefect']}",
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{settings.ports['mlflow']}",
        "MLFLOW_TRACKING_USERNAME": "vqbet",
        "MLFLOW_TRACKING_PASSWORD": settings.secrets["mlflow"],
        "VQBET_LEDGER": database.address(settings, "ledger"),
        "VQBET_STORAGE": f"s3://{objects.EVIDENCE}",
        "VQBET_DATA": f"s3://{objects.DATA}/dvc",
        "VQBET_REPOSITORY": str(place.root),
        **objects.credentials(settings),
    }


def remote_variables(*, registry: str, data: str, ledger: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of team mode for servers elsewhere. Raises TeamError where an address is malformed.

    given: variables that are taken over as they are, such as credentials.
    """
    expected = {
        "--registry": (registry, ("http://", "https://"), "http(s)://<host>"),
        "--data": (data, ("s3://",), "s3://<bucket>/<prefix>"),
        "--ledger": (
            ledger,
            ("postgresql://", "s3://"),
            "postgresql://<user>@<host>/<database> or s3://<bucket>/<prefix>",
        ),
    }
    for option, (value, schemes, wanted) in expected.items():
        if not value.startswith(schemes) or value in schemes or "\n" in value:
            raise TeamError(f"{option}: expected {wanted}, got {value!r}")
    return {**given, "MLFLOW_TRACKING_URI": registry, "VQBET_DATA": data, "VQBET_LEDGER": ledger}


def write_variables(path: Path, values: Mapping[str, str]) -> Path:
    """Write `values` as a file that a shell sources, for this user alone, and return its path. Raises TeamError."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in values.items()]
    atomic.write(path, HEAD.format(path=shlex.quote(str(path))) + "".join(lines), TeamError, private=True)
    return path


def source_command(path: Path) -> str:
    """Return the command that sources the file in the working directory's terms."""
    shown = os.path.relpath(path) if Path.cwd() in path.parents else str(path)
    return f". {shlex.quote(shown)}"
