"""HTTP interface of a desk: the operator's page and its calls, the robot's calls, and the server that answers them.

    GET  /                            the page; its address has the secret behind #, which no browser sends
    POST /api/enter {token}           a cookie for the secret
    GET  /api/state?after=&wait=      the state, once it is another one than `after`
    GET  /api/camera?after=           PNG, once there is a newer picture than `after`
    GET  /api/picture/<sha256>        PNG of an initial condition
    GET  /api/seen?trial=             outcome of a simulated robot, for an operator that is a script
    POST /api/<verb> {key, trial, ..} start, stop, lost, grade, invalid, undo, pause, resume, end: the state afterwards
    /robot/...                        of `serving.station`

Errors are {"error": sentence}: 409 for what does not fit the state, 503 for what may go better later.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vqbet.commands.trials.desk import Desk
from vqbet.commands.trials.desk_doors import DeskDoors, DeskKeys
from vqbet.contract import GateError, ServingError, VqbetError
from vqbet.files import reading
from vqbet.files.manifest import SHA256

LONG_S = 20.0  # of a long poll
TICK_S = 0.02  # between two looks at the state inside it
MOST_BYTES = 1 << 16
MOST_PICTURE = 50 * 2**20
KEY = re.compile(r"[0-9A-Za-z_-]{8,64}", re.ASCII)
CONTENT = {"desk.html": "text/html", "desk.css": "text/css", "desk.js": "text/javascript", "desk.svg": "image/svg+xml"}
Asked = Mapping[str, Any]


class RefusedError(VqbetError):
    """A request that is refused before it reaches the desk."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Door:
    """Address on which the desk listens. certificate, key: PEM files; beyond loopback both are needed."""

    host: str = "127.0.0.1"
    port: int = 8090
    certificate: Path | None = None
    key: Path | None = None

    def expect_safe(self) -> None:
        """Raise ServingError where a secret would travel in clear."""
        if (self.certificate is None) != (self.key is None):
            raise ServingError("expected --certificate and --key, got one of them")
        if self.certificate is None and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ServingError(
                f"--host {self.host}: the page's secret would travel in clear; add --certificate and --key, or stay at "
                "127.0.0.1 and forward the port with ssh"
            )


def app(desk: Desk, keys: DeskKeys, *, host: str) -> FastAPI:
    """Return the interface of a desk. host: that is listened at."""
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    made.add_middleware(DeskDoors, host=host)
    made.add_exception_handler(VqbetError, _refusal)
    made.add_exception_handler(RequestValidationError, _misread)
    _page(made, keys)
    _operator(made, desk, keys)
    _robot(made, desk, keys)
    return made


def _page(made: FastAPI, keys: DeskKeys) -> None:
    """Add the page's files, which hold no secret, and its entrance."""

    @made.get("/")
    async def page() -> Response:
        return _file("desk.html")

    @made.get("/desk.{kind}")
    async def file(kind: str) -> Response:
        return _file(f"desk.{kind}")

    @made.post("/api/enter")
    async def enter(request: Request) -> Response:
        said = await _json(request)
        if not keys.enters(_text(said, "token")):
            raise RefusedError(401, "this address is of another session; open the one that the desk has printed")
        answer = JSONResponse({})
        secure = request.url.scheme == "https"
        answer.set_cookie(keys.cookie, keys.pass_, httponly=True, samesite="strict", secure=secure, max_age=7 * 86400)
        return answer


def _operator(made: FastAPI, desk: Desk, keys: DeskKeys) -> None:
    """Add the calls of the page, for those that have entered."""

    def expect(request: Request) -> None:
        if not keys.operator(request):
            raise RefusedError(401, "open the address that the desk has printed")

    @made.get("/api/state")
    async def state(request: Request, after: str = "", wait: float = 0.0) -> Response:
        expect(request)
        await _until(lambda: desk.version != after, min(wait, LONG_S), request)
        return JSONResponse(desk.state())

    @made.get("/api/camera")
    async def camera(request: Request, after: int = 0) -> Response:
        expect(request)
        await _until(lambda: desk.camera()[0] != after, LONG_S, request)
        number, width, height, pixels = desk.camera()
        if number in (0, after):
            return Response(status_code=204)
        content = await run_in_threadpool(png, width, height, pixels)
        return Response(content, media_type="image/png", headers={"X-Number": str(number)})

    @made.get("/api/picture/{name}")
    async def picture(request: Request, name: str) -> Response:
        expect(request)
        path = desk.folder.pictures / f"{name}.png"
        if not SHA256.fullmatch(name) or not path.is_file():
            raise RefusedError(404, "there is no such picture")
        return Response(path.read_bytes(), media_type="image/png")

    @made.get("/api/seen")
    async def seen(request: Request, trial: str) -> Response:
        expect(request)
        return JSONResponse(desk.seen(trial))

    @made.post("/api/{verb}")
    async def change(request: Request, verb: str) -> Response:
        expect(request)
        said = await _json(request)
        if verb not in VERBS:
            raise RefusedError(404, f"expected one of {', '.join(VERBS)}, got {reading.short(verb)}")
        key = _text(said, "key")
        if not KEY.fullmatch(key):
            raise RefusedError(422, "key: expected 8 to 64 letters and digits")
        await run_in_threadpool(VERBS[verb], desk, f"page {key}", said)
        return JSONResponse(desk.state())


VERBS: Mapping[str, Callable[[Desk, str, Asked], None]] = {
    "start": lambda desk, key, said: desk.start(key, _text(said, "trial")),
    "stop": lambda desk, key, said: desk.stop(_text(said, "trial")),
    "lost": lambda desk, key, said: desk.lost(key, _text(said, "trial")),
    "grade": lambda desk, key, said: desk.grade(
        key, _text(said, "trial"), stage=_text(said, "stage"), **_words(said, "tag", "remark")
    ),
    "invalid": lambda desk, key, said: desk.invalidate(
        key, _text(said, "trial"), reason=_text(said, "reason"), **_words(said, "remark")
    ),
    "undo": lambda desk, key, said: desk.undo(key, _text(said, "trial")),
    "pause": lambda desk, key, said: desk.pause(key),
    "resume": lambda desk, key, said: desk.resume(key),
    "end": lambda desk, key, said: desk.end(key),
}


def _robot(made: FastAPI, desk: Desk, keys: DeskKeys) -> None:
    """Add the calls of the robot."""

    def expect(request: Request) -> None:
        if not keys.robot(request):
            raise RefusedError(401, "expected the header Authorization: Bearer with the robot's secret")

    @made.get("/robot/next")
    async def following(request: Request, wait: float = 0.0) -> Response:
        expect(request)
        said = await run_in_threadpool(desk.next)
        deadline = time.monotonic() + min(wait, LONG_S)
        while said["do"] == "wait" and time.monotonic() < deadline and not await request.is_disconnected():
            await asyncio.sleep(TICK_S)
            said = await run_in_threadpool(desk.next, asks=False)
        return JSONResponse(said)

    @made.get("/robot/running")
    async def running(request: Request, trial: str) -> Response:
        expect(request)
        return JSONResponse({"running": desk.running(trial)})

    @made.post("/robot/picture")
    async def picture(request: Request, width: int, height: int) -> Response:
        expect(request)
        desk.look(width, height, await _body(request, MOST_PICTURE))
        return JSONResponse({})

    calls: Mapping[str, Callable[[Asked], Mapping[str, Any] | None]] = {
        "hello": lambda said: desk.hello(_text(said, "robot"), said.get("simulated") is True),
        "began": lambda said: desk.began(_text(said, "trial")),
        "ended": lambda said: desk.ended(_text(said, "trial"), said),
    }

    @made.post("/robot/{call}")
    async def told(request: Request, call: str) -> Response:
        expect(request)
        if call not in calls:
            raise RefusedError(404, f"expected one of {', '.join(calls)}, picture, next and running")
        return JSONResponse(await run_in_threadpool(calls[call], await _json(request)) or {})


@contextmanager
def listening(made: FastAPI, door: Door) -> Iterator[int]:
    """Serve in a thread for the time of a `with`; yield the port. Raises ServingError where it cannot listen."""
    door.expect_safe()
    with _socket(door) as opened:
        config = uvicorn.Config(
            made,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ssl_certfile=door.certificate,
            ssl_keyfile=door.key,
            timeout_graceful_shutdown=1,
        )
        try:
            config.load()
        except OSError as error:
            raise ServingError(f"{door.certificate}: TLS: {error}; expected certificate and key in PEM") from error
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([opened],), name="vqbet desk http", daemon=True)
        thread.start()
        try:
            yield opened.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(5.0)


def _socket(door: Door) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except OSError as error:
        raise ServingError(
            f"{door.host}:{door.port}: the desk cannot listen there: {error.strerror}; choose another --port"
        ) from error
    return made


def png(width: int, height: int, pixels: bytes) -> bytes:
    """Return RGB bytes as a PNG."""
    rows = b"".join(b"\0" + pixels[row : row + 3 * width] for row in range(0, len(pixels), 3 * width))

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


async def _until(holds: Callable[[], bool], wait_s: float, request: Request) -> None:
    deadline = time.monotonic() + wait_s
    while not holds() and time.monotonic() < deadline and not await request.is_disconnected():
        await asyncio.sleep(TICK_S)


async def _misread(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
    return JSONResponse({"error": said}, 422)


async def _refusal(_: Request, error: Exception) -> Response:
    status = 500
    if isinstance(error, RefusedError):
        status = error.status
    elif isinstance(error, GateError):
        status = 503 if isinstance(error.__cause__, OSError) else 409  # a full disk may have room later
    elif isinstance(error, ServingError):
        status = 503
    return JSONResponse({"error": str(error)}, status)


def _file(name: str) -> Response:
    if name not in CONTENT:
        raise RefusedError(404, "there is no such file")
    return Response((resources.files(__package__) / name).read_bytes(), media_type=CONTENT[name])


async def _body(request: Request, most: int) -> bytes:
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > most:
            raise RefusedError(413, f"expected at most {most} bytes")
    return bytes(found)


async def _json(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise RefusedError(415, "expected application/json")
    try:
        said = json.loads(await _body(request, MOST_BYTES))
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise RefusedError(422, "expected a JSON object")
    return said


def _words(said: Asked, *names: str) -> dict[str, str]:
    """Return texts that may be left out."""
    return {name: _text(said, name, "") for name in names}


def _text(said: Asked, name: str, default: str | None = None) -> str:
    value = said.get(name, default)
    if not isinstance(value, str):
        raise RefusedError(422, f"{name}: expected text, got {reading.short(value)}")
    return value
