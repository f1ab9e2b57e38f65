"""Postgres and S3 server exactly as `vqbet team up` starts them, alone, for the duration of a measurement."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vqbet.team import database, objects, processes
from vqbet.team import settings as choices
from vqbet.team.parts import PARTS
from vqbet.team.place import Place

START_S = 240.0


@dataclass(frozen=True)
class RealServers:
    """Parts of a team that run. Restarting one leaves what it has stored."""

    place: Place
    settings: choices.Settings

    def start(self, name: str) -> float:
        """Start a part and return the seconds until it does its work. Raises TimeoutError."""
        part, began = PARTS[name], time.monotonic()
        folder = self.place.part(name)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.prepare(self.place, self.settings)
        processes.start(folder, part.launch(self.place, self.settings))
        while fault := part.well(self.place, self.settings):
            if time.monotonic() - began > START_S:
                raise TimeoutError(f"{name}: {fault}; {processes.last_words(folder)}")
            time.sleep(0.2)
        part.complete(self.place, self.settings)
        return time.monotonic() - began

    def kill(self, name: str) -> None:
        """Kill every process of a part at once, as a machine that loses its power does."""
        for process in processes.left(self.place.part(name)):
            process.send_signal(signal.SIGKILL)
        processes.end(self.place.part(name))

    def end(self, name: str) -> None:
        processes.end(self.place.part(name), PARTS[name].launch(self.place, self.settings).ending)

    @property
    def address(self) -> str:
        """Address of the S3 server."""
        return objects.credentials(self.settings)["AWS_ENDPOINT_URL"]

    def ledger(self, name: str) -> str:
        """Return the ledger's address in the part `name`; S3 also needs the variables that `started` sets."""
        return database.address(self.settings, "ledger") if name == "postgres" else f"s3://{objects.EVIDENCE}/raced"


@contextmanager
def started(names: Sequence[str]) -> Iterator[RealServers]:
    """Start the parts `names` in a folder of their own, and set this process's variables of S3."""
    folder = Path(tempfile.mkdtemp(prefix="servers-"))
    place = Place(folder / "team", folder)
    folder.chmod(0o711)
    place.make()
    servers = RealServers(place, choices.made(place.settings))
    try:
        for name in names:
            servers.start(name)
        os.environ.update(objects.credentials(servers.settings))
        yield servers
    finally:
        for name in names:
            servers.end(name)
        shutil.rmtree(folder, ignore_errors=True)
