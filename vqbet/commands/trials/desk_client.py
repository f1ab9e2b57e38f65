"""The page's calls of a desk for a program on the same machine: the operator that is a script, and the terminal."""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
import time
from collections.abc import Mapping
from typing import Any, final
from urllib.parse import quote

from vqbet.contract import ServingError

TIMEOUT_S = 30.0
RETRY_S = 0.2


class DeskRefusal(ServingError):
    """Refusal of a change by the desk, which has changed nothing; its sentence says why."""


@final
class DeskClient:
    """An operator's side of the desk's interface. A change whose answer is lost is repeated under the same key.

    token: of the page's address. Raises DeskRefusal with the desk's sentence, ServingError where the desk is gone.
    """

    def __init__(self, port: int, token: str, *, host: str = "127.0.0.1", secure: bool = False) -> None:
        self._host, self._port, self._secure = host, port, secure
        self._cookie = ""
        status, _, cookie = self._sent("POST", "/api/enter", {"token": token})
        if status != 200:
            raise DeskRefusal("the desk does not know this token")
        self._cookie = cookie.partition(";")[0]

    def state(self, after: str = "", wait_s: float = 0.0) -> dict[str, Any]:
        """Return the state, once it is another one than `after`, at the latest after `wait_s`."""
        return self._answer("GET", f"/api/state?after={quote(after, safe='')}&wait={wait_s}")

    def seen(self, trial: str) -> dict[str, Any]:
        """Return score and success of a simulated robot's trial; empty where nobody knows them."""
        return self._answer("GET", f"/api/seen?trial={quote(trial, safe='')}")

    def change(self, verb: str, *, key: str = "", **said: str) -> dict[str, Any]:
        """Make a change, and return the state afterwards."""
        body = {"key": key or secrets.token_hex(8), **said}
        try:
            return self._answer("POST", f"/api/{verb}", body)
        except (OSError, http.client.HTTPException):
            time.sleep(RETRY_S)
            return self._answer("POST", f"/api/{verb}", body)

    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        status, said, _ = self._sent(method, path, body)
        if status != 200:
            raise DeskRefusal(str(said.get("error", f"HTTP {status}")))
        return said

    def _sent(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, dict[str, Any], str]:
        made: http.client.HTTPConnection
        if self._secure:  # this process talks to itself, by the address that it listens at
            context = ssl._create_unverified_context()
            made = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=context)
        else:
            made = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        headers = {"Cookie": self._cookie, "Content-Type": "application/json"}
        try:
            made.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = made.getresponse()
            content = json.loads(answer.read())
            return answer.status, content, answer.headers.get("Set-Cookie", "")
        finally:
            made.close()
