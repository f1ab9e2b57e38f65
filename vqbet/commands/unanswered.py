"""Errors whose cause is a server that did not answer, which another try may not meet; all others are there to stay.

A server that was killed, or is being started again, refuses connections, breaks them, or answers with a status from
500. Libraries wrap that in errors of their own, so all causes of an error are looked at, by the names of their classes:
no library is imported for it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

ADVICE = "a server did not answer, so it may work at another try: vqbet team status"
NAMES = frozenset(
    {
        *("ConnectionError", "TimeoutError", "URLError"),  # Python, requests
        *("HTTPClientError", "EndpointConnectionError"),  # botocore, aiohttp's by way of it
        *("ClientConnectionError", "ServerDisconnectedError", "TransportError"),  # aiohttp, httpx
        *("OperationalError", "InterfaceError"),  # SQLAlchemy, pg8000
    }
)
CODES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")  # of MLflow
CLOSING = ("57P", "08")  # classes of Postgres's own codes: it ends, or has lost the connection


def by_server(error: BaseException) -> bool:
    """Return whether `error`, or a cause of it, is a server's that did not answer."""
    return any(ADVICE in str(one) or _unanswered(one) for one in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _unanswered(error: BaseException) -> bool:
    if isinstance(error, subprocess.TimeoutExpired | FileNotFoundError):
        return False
    if NAMES & {kind.__name__ for kind in type(error).__mro__}:
        return True
    status = getattr(error, "response", None)
    answer = status.get("ResponseMetadata", {}) if isinstance(status, dict) else {}
    told = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return (
        getattr(error, "error_code", "") in CODES
        or int(answer.get("HTTPStatusCode", 0)) >= 500
        or str(told.get("C", "")).startswith(CLOSING)
    )
