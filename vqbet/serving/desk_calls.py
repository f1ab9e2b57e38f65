"""Calls of a robot to the desk of a session of trials, by HTTP and JSON; the standard library and numpy only."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

import numpy as np

from vqbet.contract import ServingError
from vqbet.files import reading

MOST_BYTES = 1 << 16  # of an answer


class AwayError(ServingError):
    """The desk cannot be reached, or answers with a fault of its own; it may be there again later."""


@final
class DeskCalls:
    """The desk's HTTP interface. Every call has a deadline, and opens a connection of its own."""

    def __init__(self, url: str, token: str, tls: ssl.SSLContext | Path | str | None, timeout_s: float) -> None:
        if not token:
            raise ServingError("the robot needs its secret for the desk; set VQBET_ROBOT_TOKEN, as the desk has it")
        self.url, self._token, self._timeout_s = url, token, timeout_s
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except (ValueError, AttributeError, TypeError) as error:
            raise ServingError(
                f"desk: expected an address such as http://desk:8090, got {reading.short(url)}"
            ) from error
        if parts.scheme not in ("http", "https") or not self._host or parts.path not in ("", "/") or parts.query:
            raise ServingError(f"desk: expected an address such as http://desk:8090, got {reading.short(url)}")
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._tls = tls if isinstance(tls, ssl.SSLContext) else _authority(tls)

    def asked(
        self, method: str, path: str, body: Mapping[str, Any] | np.ndarray | None = None, *, more_s: float = 0.0
    ) -> dict[str, Any]:
        """Return the desk's answer. Raises AwayError where it is gone, and ServingError with its sentence else."""
        timeout_s = self._timeout_s + more_s
        made: http.client.HTTPConnection
        if self._tls is None:
            made = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        else:
            made = http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)
        content, kind = _written(body)
        headers = {"Authorization": f"Bearer {self._token}"} | ({"Content-Type": kind} if kind else {})
        try:
            made.request(method, path, content, headers)
            answer = made.getresponse()
            status, said = answer.status, answer.read(MOST_BYTES)
        except ssl.SSLCertVerificationError as error:
            raise ServingError(f"desk {self.url}: TLS: {reading.cut(str(error))}; check its certificate") from error
        except (OSError, http.client.HTTPException) as error:
            why = reading.cut(str(error)) or type(error).__name__
            raise AwayError(f"desk {self.url}: {why}; see whether `vqbet trials run` runs there") from error
        finally:
            made.close()
        return self._understood(status, said)

    def _understood(self, status: int, said: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(said)
        except ValueError:
            answer = None
        if status >= 500:
            raise AwayError(f"desk {self.url}: HTTP {status}: {_sentence(answer)}")
        if status != 200:
            raise ServingError(f"desk {self.url}: refused with HTTP {status}: {_sentence(answer)}")
        if not isinstance(answer, dict):
            raise ServingError(f"desk {self.url}: expected a JSON object, got {reading.short(said[:80])}")
        return answer


def _written(body: Mapping[str, Any] | np.ndarray | None) -> tuple[bytes | None, str]:
    if body is None:
        return None, ""
    if isinstance(body, np.ndarray):
        return body.tobytes(), "application/octet-stream"
    return json.dumps(body, allow_nan=False).encode(), "application/json"


def _sentence(answer: Any) -> str:
    said = answer.get("error") if isinstance(answer, dict) else None
    return reading.cut(said, 400) if isinstance(said, str) else "no reason given"


def _authority(tls: Path | str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=tls)
    except (OSError, ssl.SSLError) as error:
        raise ServingError(f"{tls}: expected the certificate authority's file (PEM): {error}") from error
