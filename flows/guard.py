"""Access checks of the Prefect server that a flow or `vqbet flow ui` starts: only its own client and pages may connect.

Prefect 3.8 checks neither the Host header (DNS rebinding) nor the origin of websockets and of requests without a
preflight, and allows any page to frame its pages. The two checks here run before all of Prefect's handlers. The
server's own services ask without a socket, under a host name of their own: by it alone automations act.
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

# Prefect's pages keep the password under this name. A browser never sends the part of an address after #. A wrong
# password is not kept, so that a link from a foreign page cannot log anybody out.
PAGE = """<!doctype html><meta charset="utf-8"><title>Prefect</title><script>
const password = btoa(location.hash.slice(1));
fetch("/api/admin/version", {headers: {Authorization: "Basic " + password}}).then((answer) => {
  if (answer.ok) localStorage.setItem("prefect-password", password);
  location.replace("/");
});
</script>"""


INSIDE = "prefect-in-memory"  # of requests by the server itself: `prefect.server.api.clients`


class OwnHost:
    """ASGI middleware that refuses requests from a socket that name another host than `allowed`.

    The name of the server's side is that of the socket, which no header changes; a request without a socket has INSIDE.
    """

    def __init__(self, app: ASGIApp, allowed: str) -> None:
        self.inside = app
        self.outside = TrustedHostMiddleware(app, allowed_hosts=[allowed])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host, port = scope.get("server") or ("", None)
        app = self.inside if host == INSIDE and port is None else self.outside
        await app(scope, receive, send)


class OwnPages:
    """ASGI middleware that refuses requests from pages of another origin, and forbids framing of all responses.

    A browser sends the origin of every websocket and of every request that can change something. Other programs send
    none and need the password.
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
    """Add both checks to Prefect's `app`, served at `origin`, and a page at `entrance` that logs a browser in."""
    app.router.routes.insert(0, Route(entrance, _enter))
    app.add_middleware(OwnPages, origin=origin)
    app.add_middleware(OwnHost, allowed=str(urlsplit(origin).hostname))


async def _enter(_request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE, headers={"Cache-Control": "no-store"})
