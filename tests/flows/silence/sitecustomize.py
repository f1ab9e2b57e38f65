"""Put on PYTHONPATH by a test: every Python process notes each address outside this machine that it wants to reach."""

import os
import sys

LOCAL = ("127.", "::1", "localhost", "0.0.0.0", "::")


def note(event: str, arguments: tuple) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else "localhost"
    elif event == "socket.getaddrinfo":
        host = arguments[0] or "localhost"
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host)
    if not host.startswith(LOCAL):
        with open(os.environ["OUTSIDE_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{event} {host} by {' '.join(sys.argv)}\n")


if os.environ.get("OUTSIDE_LOG"):
    sys.addaudithook(note)
