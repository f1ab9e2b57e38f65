"""Access checks of the desk's HTTP interface: a cookie for the operator's page, a token for the robot.

A page of another origin is refused by its Origin, one that was led here by a name of its own (DNS rebinding) by Host.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class DeskDoors:
    """ASGI middleware: Host and Origin of every request, and the headers of every answer. host: that is listened at."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        own = socket.gethostname().lower()
        self._names = {"localhost", host.lower(), own, f"{own}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif sentence := self._refusal(Headers(scope=scope), str(scope["scheme"])):
            await JSONResponse({"error": sentence}, 403, HEADERS)(scope, receive, send)
        else:
            await self._app(scope, receive, _guarded(send))

    def _refusal(self, headers: Headers, scheme: str) -> str:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._own(hosts[0]):
            return "expected this desk's own address as Host"
        if set(headers.getlist("origin")) - {f"{scheme}://{hosts[0]}"}:
            return "only this desk's own page may ask"
        return ""

    def _own(self, host: str) -> bool:
        """Return whether a Host names this machine: a name of its own, or an address, which no foreign page has."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
            if name in self._names:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class DeskKeys:
    """Secrets of page and robot. cookie: name of the page's, another one for every plan."""

    def __init__(self, page: str, robot: str, plan: str) -> None:
        self._page, self._robot = page, robot
        self.cookie = f"vqbet-desk-{plan[:12]}"
        self.pass_ = hmac.new(page.encode(), b"cookie", hashlib.sha256).hexdigest()

    def enters(self, token: str) -> bool:
        """Return whether a token is the one of the page's address."""
        return hmac.compare_digest(token.encode(), self._page.encode())

    def operator(self, request: Request) -> bool:
        """Return whether a request is of a page that has entered."""
        return hmac.compare_digest(request.cookies.get(self.cookie, "").encode(), self.pass_.encode())

    def robot(self, request: Request) -> bool:
        """Return whether a request is of the robot."""
        said = request.headers.get("authorization", "")
        return hmac.compare_digest(said.encode(), f"Bearer {self._robot}".encode())


def _guarded(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sending
