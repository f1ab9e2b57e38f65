"""The Prefect server of one project, for its own client and its own pages only, and gone when its parent is.

`start` replaces the server that Prefect would start by itself, which any web page can steer and which outlives a
kill -9. The socket is made by the parent, so that nobody else can take the port first and be shown the password.
The password goes through the child's standard input, and the end of that input is the end of the parent: it comes
however the parent ends, on Linux and macOS alike.
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
GRACE_S = 5  # for requests under way and Prefect's services to end, then the process ends without them
PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"


def start() -> None:
    """Start the embedded server and make it that of this process; to be called before prefect is imported.

    Raises PipelineError where no server answers.
    """
    listener = listen(0)
    port, password = listener.getsockname()[1], new_password()
    child = subprocess.Popen(
        [sys.executable, "-m", "flows.server", str(listener.fileno())],
        stdin=subprocess.PIPE,
        text=True,
        pass_fds=[listener.fileno()],
        start_new_session=True,  # a terminal's Ctrl-C is for the flow, which has yet to tell the server how it ended
    )
    atexit.register(_stop, child)
    listener.close()
    assert child.stdin is not None
    child.stdin.write(f"{password}\n")
    child.stdin.flush()
    _use(f"http://{HOST}:{port}/api", password)
    _wait(port)


def listen(port: int) -> socket.socket:
    """Return a socket that listens on this machine only; port 0 is any free one. Raises ConfigError for one in use."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ConfigError(f"port {port}: {error.strerror}; choose another one with --port") from error


def new_password() -> str:
    """Return a password in the form that Prefect asks for, user:password."""
    return f"vqbet:{secrets.token_urlsafe(32)}"


def run(listener: socket.socket, password: str, *, pages: bool) -> None:
    """Serve Prefect's API, and its pages where `pages` says so, in this process until a signal ends it."""
    origin = "http://{}:{}".format(*listener.getsockname())
    os.environ |= {  # under the names that Prefect reads first
        PASSWORD: password,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": origin,
        "PREFECT_SERVER_UI_ENABLED": str(pages).lower(),
        "PREFECT_SERVER_UI_API_URL": f"{origin}/api",  # the pages would ask the default port
    }
    import uvicorn
    from prefect.server.api.server import create_app

    from flows import guard

    app = create_app(ephemeral=not pages, final=True)
    guard.close(app, origin, entrance=ENTRANCE)
    config = uvicorn.Config(app, lifespan="on", log_level="error", timeout_graceful_shutdown=GRACE_S)
    uvicorn.Server(config).run(sockets=[listener])


def _use(address: str, password: str) -> None:
    """Point this process's Prefect at the server. The stages that a flow starts have no need of the password."""
    os.environ |= {"PREFECT_API_URL": address, "PREFECT_API_AUTH_STRING": password}
    import prefect.context  # noqa: F401  # reads its settings once

    del os.environ["PREFECT_API_AUTH_STRING"]


def _wait(port: int) -> None:
    """Ask until the first answer: a connection is taken up as soon as the server serves, and cut where it ends."""
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
    """Wait for the end of the parent, then end: in order if that takes no longer than GRACE_S."""
    parent.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


def main(descriptor: int) -> None:
    """Serve on an inherited socket for as long as the parent lives, whose first line is the password."""
    password = sys.stdin.readline().strip()
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    run(socket.socket(fileno=descriptor), password, pages=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
