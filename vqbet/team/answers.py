"""Checks that a server on this machine answers, with and without its credential."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request

from vqbet.team.settings import HOST

TIMEOUT_S = 10.0
MOST_BYTES = 1 << 20


def wrong(port: int, path: str, login: tuple[str, str] | None = None) -> str:
    """Return "" if a GET with `login` (user, password) succeeds, else a reason."""
    return asked(port, path, login)[1]


def asked(port: int, path: str, login: tuple[str, str] | None = None) -> tuple[bytes, str]:
    """Return the body of the response to a GET and ""; or an empty body and the reason."""
    request = urllib.request.Request(f"http://{HOST}:{port}{path}")
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(":".join(login).encode()).decode())
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=TIMEOUT_S) as response:
            return response.read(MOST_BYTES), ""
    except urllib.error.HTTPError as error:
        return b"", f"answers with status {error.code}"
    except (OSError, ValueError) as error:
        return b"", f"does not answer: {getattr(error, 'reason', None) or error}"
