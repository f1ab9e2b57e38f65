"""Joining a team from a clone: the environment file, and DVC's remote in this clone alone."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vqbet import team, versions
from vqbet.team import run as runs

TAKEN = (  # over from this shell, where they are set: addresses beside those asked for, and credentials
    *("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    *("VQBET_STORAGE", "VQBET_BRANCH", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    *("AWS_DEFAULT_REGION", "AWS_PROFILE"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Addresses of a team. prefect, evidence: "" where the team has none, or this shell says them already."""

    registry: str
    data: str
    ledger: str
    prefect: str = ""
    evidence: str = ""


def init(root: Path, asked: Membership) -> dict[str, str]:
    """Write the environment file and DVC's remote; return a table of them. Raises TeamError for a malformed address.

    On the machine that runs the team, whose file `vqbet team up` writes, only the remote.
    """
    given = {name: os.environ[name] for name in TAKEN if os.environ.get(name)}
    named = {"PREFECT_API_URL": asked.prefect, "VQBET_STORAGE": asked.evidence, "VQBET_REPOSITORY": repository(root)}
    given |= {name: value for name, value in named.items() if value}
    values = team.remote_variables(registry=asked.registry, data=asked.data, ledger=asked.ledger, given=given)
    place = team.Place.of(root)
    runs.remote(root, asked.data)
    if place.made():
        return {"DVC": _remote(asked), "environment": f"{place.environment}, as `vqbet team up` has written it"}
    place.make()
    path = team.write_variables(place.environment, values)
    return {
        "environment": f"{path}, mode 0600: {', '.join(sorted(values))}",
        "DVC": _remote(asked),
        "next": team.source_command(path),
    }


def _remote(asked: Membership) -> str:
    return f".dvc/config.local: remote team, {asked.data}"


def repository(root: Path) -> str:
    """Return the address that this clone pushes to, without a password; "" if it has none."""
    done = subprocess.run(
        ["git", "remote", "get-url", "--push", "origin"], cwd=root, capture_output=True, text=True, check=False
    )
    return versions.shown(done.stdout.strip()) if done.returncode == 0 else ""
