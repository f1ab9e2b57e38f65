"""Ports and credentials of a team, chosen once, at the first `up`."""

from __future__ import annotations

import json
import random
import secrets
import socket
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from vqbet.contract import TeamError
from vqbet.files import atomic

HOST = "127.0.0.1"
PORTS = (
    *("postgres", "prefect", "mlflow", "s3", "s3_grpc", "master", "master_grpc"),
    *("volume", "volume_grpc", "filer", "filer_grpc"),
)
SECRETS = (
    *("postgres", "database_prefect", "database_mlflow", "database_ledger", "prefect", "mlflow", "mlflow_session"),
    *("s3_key", "s3_secret", "volume_write", "volume_read", "filer_write", "filer_read"),
)
RANGE = (20_000, 32_000)  # below the ports that Linux and macOS give to outgoing connections
TRIES = 1000


@dataclass(frozen=True)
class Settings:
    """Ports by part, and credentials by purpose. Their repr shows neither."""

    ports: dict[str, int]
    secrets: dict[str, str]

    def __repr__(self) -> str:
        return f"Settings({len(self.ports)} ports, {len(self.secrets)} credentials)"


def read(path: Path) -> Settings:
    """Return the settings in `path`. Raises TeamError if the file is missing or incomplete."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        ports = {name: int(found["ports"][name]) for name in PORTS}
        return Settings(ports, {name: str(found["secrets"][name]) for name in SECRETS})
    except FileNotFoundError as error:
        raise TeamError(f"{path}: missing; start the team first: vqbet team up") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TeamError(
            f"{path}: is not what `vqbet team up` writes ({type(error).__name__}); restore it, or remove the folder "
            "with everything the team has stored"
        ) from error


def made(path: Path) -> Settings:
    """Return the settings in `path`, which are chosen and written if there are none."""
    if path.exists():
        return read(path)
    chosen = Settings(_ports(), {name: secrets.token_hex(24) for name in SECRETS})
    content = json.dumps({"ports": chosen.ports, "secrets": chosen.secrets}, indent=1)
    atomic.write(path, content, TeamError, private=True)
    return chosen


def is_free(port: int) -> bool:
    """Return whether this process could listen on the port."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # also right after a server on it has ended
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _ports() -> dict[str, int]:
    chosen: list[int] = []
    for _ in range(TRIES):
        port = random.randint(*RANGE)
        if port not in chosen and is_free(port):
            chosen.append(port)
        if len(chosen) == len(PORTS):
            return dict(zip(PORTS, chosen, strict=True))
    raise TeamError(
        f"found no {len(PORTS)} free ports of this machine from {RANGE[0]} to {RANGE[1]}; end what uses them"
    )
