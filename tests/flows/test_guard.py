"""Who may ask the Prefect server by which name: the world by its own host alone, the server itself without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from flows import guard

ORIGIN = "http://127.0.0.1:4200"


@pytest.fixture
def app() -> FastAPI:
    made = FastAPI()
    made.add_api_route("/", lambda: "well")
    guard.close(made, ORIGIN, entrance="/enter")
    return made


def status(app: FastAPI, host: str, server: tuple[str, int | None] | None) -> int:
    """Return the status of a GET with this Host header that came by this socket, as an ASGI server says it."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "", "headers": [(b"host", host.encode())],
        "client": ("127.0.0.1", 5), "server": server,
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return int(sent[0]["status"])


def test_a_socket_is_asked_by_its_own_name_alone(app: FastAPI) -> None:
    socket = ("127.0.0.1", 4200)
    assert status(app, "127.0.0.1:4200", socket) == 200
    for foreign in ("pages.example", guard.INSIDE, f"{guard.INSIDE}:4200"):
        assert status(app, foreign, socket) == 400, foreign
        assert status(app, foreign, None) == 400, foreign
        assert status(app, foreign, (guard.INSIDE, 4200)) == 400, "a socket of a machine that has this name"


def test_the_server_itself_is_answered_as_prefect_asks(app: FastAPI) -> None:
    from prefect.server.api.clients import OrchestrationClient

    asked = OrchestrationClient()._http_client.base_url

    async def answered() -> int:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=f"{asked.scheme}://{asked.host}") as client:
            return (await client.get("/")).status_code

    assert asyncio.run(answered()) == 200
