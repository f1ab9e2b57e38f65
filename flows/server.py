"""Prefect server of one project, for its own client and pages only, which ends with its parent process.

`start` replaces the server that Prefect would start by itself, which any web page can control and which survives a
kill -9 of its parent. The parent makes the socket, so that no other process can take the port and receive the password.
The password goes through the child's standard input. That input ends when the parent ends, for whatever reason, on
Linux and macOS.
"""

from __future__ import annotations

import atexit
import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TextIO

from vqbet.contract import ConfigError, PipelineError

HOST = "127.0.0.1"
ENTRANCE = "/enter"  # the page that logs a browser in, see flows.guard
GRACE_S = 5  # time for open requests and Prefect's services to end before the process is ended
PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"


def start() -> None:
    """Start the embedded server and point this process's Prefect at it. To be called before prefect is imported.

    Raises PipelineError where the server does not answer.
    """
    listener = listen(0)
    port, password = listener.getsockname()[1], new_password()
    child = subprocess.Popen(
        [sys.executable, "-m", "flows.server", str(listener.fileno())],
        stdin=subprocess.PIPE,
        text=True,
        pass_fds=[listener.fileno()],
        start_new_session=True,  # Ctrl-C must reach only the flow, which then reports its end to the server
    )
    atexit.register(_stop, child)
    listener.close()
    assert child.stdin is not None
    child.stdin.write(f"{password}\n")
    child.stdin.flush()
    _use(f"http://{HOST}:{port}/api", password)
    _wait(port)


def listen(port: int) -> socket.socket:
    """Return a socket that listens on this machine only; port 0 selects a free one. Raises ConfigError if in use."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ConfigError(f"port {port}: {error.strerror}; choose another one with --port") from error


def new_password() -> str:
    """Return a new password in Prefect's form user:password."""
    return f"vqbet:{secrets.token_urlsafe(32)}"


def run(listener: socket.socket, password: str, *, pages: bool) -> None:
    """Serve Prefect's API, and its pages if `pages` is True, in this process until a signal ends it."""
    origin = "http://{}:{}".format(*listener.getsockname())
    os.environ |= {  # the variables that take precedence in Prefect
        PASSWORD: password,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": origin,
        "PREFECT_SERVER_UI_ENABLED": str(pages).lower(),
        "PREFECT_SERVER_UI_API_URL": f"{origin}/api",  # else the pages use the default port
    }
    import uvicorn
    from prefect.server.api.server import create_app

    from flows import guard

    app = create_app(ephemeral=not pages, final=True)
    guard.close(app, origin, entrance=ENTRANCE)
    config = uvicorn.Config(app, lifespan="on", log_level="error", timeout_graceful_shutdown=GRACE_S)
    uvicorn.Server(config).run(sockets=[listener])


def _use(address: str, password: str) -> None:
    """Point this process's Prefect at the server. Stages started by a flow do not inherit the password."""
    os.environ |= {"PREFECT_API_URL": address, "PREFECT_API_AUTH_STRING": password}
    import prefect.context  # noqa: F401  # reads its settings once

    del os.environ["PREFECT_API_AUTH_STRING"]


def _wait(port: int) -> None:
    """Wait for the server's first response: it accepts the connection once it serves, and closes it when it ends."""
    seconds = int(os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"])
    connection = http.client.HTTPConnection(HOST, port, timeout=seconds)
    try:
        connection.request("GET", "/api/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        timed_out = isinstance(error, TimeoutError)
        why = f"no answer within {seconds} s; run it again" if timed_out else "it ended; its own words are above"
        raise PipelineError(f"the embedded Prefect server did not start: {why}") from error
    finally:
        connection.close()
    if status != http.client.OK:
        raise PipelineError(f"the embedded Prefect server did not start: expected status 200, got {status}")


def _stop(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(2 * GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _end_with(parent: TextIO) -> None:
    """Wait until the parent ends, then end this process, gracefully within GRACE_S seconds, else at once."""
    parent.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


def main(descriptor: int) -> None:
    """Serve on an inherited socket while the parent lives. The password is the first line of standard input."""
    password = sys.stdin.readline().strip()
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    run(socket.socket(fileno=descriptor), password, pages=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
