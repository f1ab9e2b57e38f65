"""Proxy between a client and moto's S3 that injects faults and adds two behaviours of S3 that moto lacks.

Moto stores the checksum of the header without checking the bytes; the proxy refuses a body whose SHA-256 differs from
its header, as S3 does. Moto decides a conditional put in two steps; the proxy forwards one conditional put at a time.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

CHECKSUM = "x-amz-checksum-sha256"


@dataclass(frozen=True)
class Request:
    method: str
    path: str  # including the query
    headers: dict[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""
    sent: int | None = None  # bytes of the body before the connection breaks; None: it does not break


Forward = Callable[[Request], Answer]
Fault = Callable[[Request, Forward], Answer | None]  # None: the connection breaks without an answer


def fails(status: int, code: str) -> Fault:
    """Refuse the request with an error, without forwarding it."""
    body = f"<Error><Code>{code}</Code><Message>AKIDEXAMPLE said no</Message></Error>".encode()
    return lambda request, forward: Answer(status, {"Content-Type": "application/xml"}, body)


def lost(request: Request, forward: Forward) -> Answer | None:
    """Forward the request, but answer with an error."""
    forward(request)
    return fails(500, "InternalError")(request, forward)


def silent(request: Request, forward: Forward) -> None:
    """Forward the request, and break the connection before the answer."""
    forward(request)


def cut(request: Request, forward: Forward) -> Answer:
    """Break the connection in the middle of the answer's body."""
    answer = forward(request)
    return replace(answer, sent=len(answer.body) // 2)


def flip_up(request: Request, forward: Forward) -> Answer:
    """Flip one bit on the way to the server."""
    return forward(replace(request, body=_flipped(request.body)))


def flip_down(request: Request, forward: Forward) -> Answer:
    """Flip one bit on the way back."""
    answer = forward(request)
    return replace(answer, body=_flipped(answer.body))


def hangs(request: Request, forward: Forward) -> None:
    """Accept the request and do not answer for 10 s, longer than any test waits."""
    threading.Event().wait(10)


def after(action: Callable[[], Any]) -> Fault:
    """Return a fault that calls `action` when the request arrives, then forwards it."""

    def fault(request: Request, forward: Forward) -> Answer:
        action()
        return forward(request)

    return fault


@dataclass
class _Planned:
    method: str
    part: str
    fault: Fault
    times: int


class Between:
    """Proxy on loopback for the server at `address`. `plan` schedules faults; `seen` holds all requests."""

    def __init__(self, address: str) -> None:
        self.bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        self.seen: list[Request] = []
        self._behind = urlsplit(address)
        self._planned: list[_Planned] = []
        self._lock, self._conditional = threading.Lock(), threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"between": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator[Between]:
        self._thread.start()
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def plan(self, method: str, part: str, fault: Fault, times: int = 1) -> None:
        """Apply `fault` to the next `times` requests of `method` whose path contains `part`."""
        self._planned.append(_Planned(method, part, fault, times))

    def left(self) -> int:
        """Return how many faults are still to happen."""
        return sum(planned.times for planned in self._planned)

    def forget(self) -> None:
        """Drop the faults that are still to happen."""
        self._planned.clear()

    def sent(self, method: str) -> list[str]:
        """Return the paths of the requests of a method, in order."""
        return [request.path.partition("?")[0] for request in self.seen if request.method == method]

    def answer(self, request: Request) -> Answer | None:
        with self._lock:
            self.seen.append(request)
            planned = next((item for item in self._planned if self._fits(item, request)), None)
            if planned:
                planned.times -= 1
        return planned.fault(request, self._checked) if planned else self._checked(request)

    @staticmethod
    def _fits(planned: _Planned, request: Request) -> bool:
        return planned.times > 0 and planned.method == request.method and planned.part in request.path

    def _checked(self, request: Request) -> Answer:
        said = {name.lower(): value for name, value in request.headers.items()}
        if said.get(CHECKSUM, _sha256(request.body)) != _sha256(request.body):
            return fails(400, "BadDigest")(request, self._forward)  # type: ignore[return-value]
        if "if-none-match" in said:
            with self._conditional:
                return self._forward(request)
        return self._forward(request)

    def _forward(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(self._behind.hostname or "", self._behind.port, timeout=240)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "expect"}
        connection.request(request.method, request.path, request.body or None, headers)
        response = connection.getresponse()
        dropped = ("transfer-encoding", "connection", "date", "server")
        kept = {name: value for name, value in response.getheaders() if name.lower() not in dropped}
        answer = Answer(response.status, kept, response.read())
        connection.close()
        return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    between: Between

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.between.answer(Request(self.command, self.path, dict(self.headers.items()), body))
        self.close_connection = answer is None or answer.sent is not None
        if answer is None:
            return
        self.send_response(answer.status)
        if "content-length" not in {name.lower() for name in answer.headers}:
            self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: answer.sent])

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def log_message(self, *_: Any) -> None:
        """Log nothing, since a failing test reports enough."""


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
