"""Doors of the Prefect server that a flow or `vqbet flow ui` starts, open to its own client and its own pages.

Prefect 3.8 checks neither the name under which it is asked (DNS rebinding), nor where a request or a websocket that
needs no preflight comes from, and lets any page frame its own. The two checks stand before everything of Prefect's.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Prefect's pages keep the password under this name. The part of an address after # is not sent to any server. A wrong
# password is not kept, so that a foreign page which leads here cannot log anybody out.
PAGE = """<!doctype html><meta charset="utf-8"><title>Prefect</title><script>
const password = btoa(location.hash.slice(1));
fetch("/api/admin/version", {headers: {Authorization: "Basic " + password}}).then((answer) => {
  if (answer.ok) localStorage.setItem("prefect-password", password);
  location.replace("/");
});
</script>"""


class OwnPages:
    """ASGI middleware: requests that a page of another origin makes are refused, and no page may frame an answer.

    A browser names the origin of every request that can change something, and of every websocket; other programs name
    none, and have to know the password.
    """

    def __init__(self, app: ASGIApp, origin: str) -> None:
        self.app = app
        self.origin = origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif set(Headers(scope=scope).getlist("origin")) - {self.origin}:
            refusal = PlainTextResponse("only this server's own pages may ask", status_code=403)
            await refusal(scope, receive, send)
        else:
            await self.app(scope, receive, _unframed(send))


def _unframed(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Frame-Options"] = "DENY"
        await send(message)

    return sending


def close(app: FastAPI, origin: str, *, entrance: str) -> None:
    """Put both checks before Prefect's `app`, served at `origin`; a page at `entrance` logs a browser in."""
    app.router.routes.insert(0, Route(entrance, _enter))
    app.add_middleware(OwnPages, origin=origin)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[str(urlsplit(origin).hostname)])


async def _enter(_request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE, headers={"Cache-Control": "no-store"})
