"""Checks of what the project stands on: GPU and driver, clocks of servers, the data remote, ledgers, locks, notices."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from vqbet import config, registry, versions
from vqbet.commands import notices
from vqbet.contract import VqbetError

SERVERS = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "AWS_ENDPOINT_URL")  # variables that may hold an http address
APART_S = 30.0  # between this clock and a server's: logins and signatures of S3 fail at a few minutes
ANSWER_S = 5.0
NAMES_DRIVER = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]


def gpu() -> tuple[str, bool]:
    """Return a sentence on GPUs and their driver, and whether it is a fault: a GPU that torch cannot use."""
    if shutil.which("nvidia-smi") is None:
        return "no NVIDIA driver: trainings run on the processor", False
    try:
        done = subprocess.run(NAMES_DRIVER, capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi does not answer ({error}); see to the driver", True
    if done.returncode:
        return f"nvidia-smi: {(done.stderr or done.stdout).strip().splitlines()[-1]}; see to the driver", True
    import torch

    named = "; ".join(line.strip() for line in done.stdout.splitlines())
    if not torch.cuda.is_available():
        return f"{named}, but torch {torch.__version__} cannot use it: run `make setup` on this machine", True
    return named, False


def clocks() -> Iterator[tuple[str, str, bool]]:
    """Yield for each server of the environment its variable, a sentence on its clock, and whether it is a fault."""
    for variable in SERVERS:
        address = urlsplit(os.environ.get(variable, ""))
        if address.scheme not in ("http", "https") or not address.hostname:
            continue
        try:
            apart = _apart(address.scheme, address.hostname, address.port)
        except (OSError, http.client.HTTPException) as error:
            yield variable, f"{address.hostname} does not answer: {error}", True
            continue
        if apart is None:
            yield variable, f"{address.hostname} does not say what time it is", False
        elif abs(apart) > APART_S:
            side = "ahead of" if apart > 0 else "behind"
            yield variable, f"the clock of {address.hostname} is {abs(apart):.0f} s {side} this one; set both", True
        else:
            yield variable, f"{address.hostname} answers, clocks agree within {max(1.0, abs(apart)):.0f} s", False


def remote(root: Path) -> tuple[str, bool]:
    """Return whether DVC's remote holds all of data.dvc, in a sentence, and whether it is a fault."""
    if not (root / "data.dvc").is_file():
        return "no data.dvc yet; `vqbet ingest <task>` makes it", False
    if not (root / ".dvc").is_dir():
        return "data.dvc, but no .dvc: `git checkout .dvc`", True
    found = versions.audit(root)
    return f"DVC's remote holds all {found.files} files of data.dvc, {found.size / 1e6:.1f} MB", False


def ledgers(root: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield for each task with a champion or a fault: its name, a sentence on ledger and registry, whether a fault."""
    path = root / "params.yaml"
    for task in config.sections(path) if path.is_file() else ():
        what = f"ledger of {task}"
        try:
            wrong, entries = registry.amiss(task), registry.history(task)
        except VqbetError as error:
            yield what, str(error), True
            continue
        if wrong:
            yield what, f"{wrong}; vqbet audit {task} --repair", True
        elif entries:
            yield what, f"agrees with the registry, entries: {len(entries)}", False


def locks(root: Path) -> tuple[str, bool]:
    """Return whether DVC's locks are held by processes that live, in a sentence, and whether it is a fault."""
    path = root / ".dvc" / "tmp" / "rwlock"
    try:
        entries = json.loads(path.read_bytes())
        held = [one["pid"] for one in entries.get("write", {}).values()]
        held += [one["pid"] for many in entries.get("read", {}).values() for one in many]
    except FileNotFoundError:
        return "none is held", False
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{path} is not readable ({error}); delete it while no DVC runs", True
    dead = sorted({pid for pid in held if not psutil.pid_exists(pid)})
    if dead:
        said = ", ".join(map(str, dead))
        return (
            f"{path} is held by processes that have ended ({said}); the next command of vqbet or DVC drops them",
            False,
        )
    return (f"held by processes {', '.join(map(str, sorted(set(held))))}" if held else "none is held"), False


def notified() -> tuple[str, bool]:
    """Return who hears notices, in a sentence. Raises ConfigError where $VQBET_NOTIFY cannot be used."""
    notices.check()
    return ("go to $VQBET_NOTIFY" if os.environ.get(notices.VARIABLE) else "nobody is named in $VQBET_NOTIFY"), False


def _apart(scheme: str, host: str, port: int | None) -> float | None:
    """Return by how many seconds a server's clock is ahead of this one; None where it does not say."""
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=ANSWER_S)
    try:
        connection.request("HEAD", "/")
        asked = connection.getresponse().getheader("Date")
    finally:
        connection.close()
    try:
        return parsedate_to_datetime(asked).timestamp() - time.time() if asked else None
    except ValueError:
        return None
