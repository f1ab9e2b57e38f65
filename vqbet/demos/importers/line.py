"""HTTP request to an untrusted server, with a deadline. Addresses of this machine and its network are refused.

A name is looked up once, and the connection is made to the address that was checked, so a name server that answers
differently the second time has no effect. Bytes that arrive extend the deadline of the whole transfer. A timeout of
single reads would never stop a server that sends one byte a second.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

VARIABLE = "VQBET_PRIVATE_SOURCES"  # set by the person who runs it, never by a parameter: "1" allows private addresses
TIMEOUT_S = 30.0  # for connecting, and for each further piece of the response
GRACE_S = 60.0  # for the whole transfer, in addition to the time allowed for its bytes
SLOWEST_BYTES_PER_S = 16 * 2**10
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Refused(Exception):
    """Raised where an address must not be requested; the message says why."""


class Line:
    """Connections and clock of one transfer. done: bytes of the body received so far."""

    def __init__(self) -> None:
        self.done = 0
        self.late = False
        self._began, self._ended = time.monotonic(), threading.Event()
        self._sockets: list[socket.socket] = []

    def allowed_s(self) -> float:
        return GRACE_S + self.done / SLOWEST_BYTES_PER_S

    def connect(self, address: tuple[str, int], timeout: Any = TIMEOUT_S, *rest: Any) -> socket.socket:
        """Connect as `socket.create_connection`, but to a checked address. Raises Refused, OSError."""
        made = _connected(address, timeout)
        self._sockets.append(made.dup())  # TLS takes over the socket itself
        return made

    def watch(self) -> None:
        """Shut the connections down when the time is over; runs in its own thread."""
        while not self._ended.wait(min(1.0, self.allowed_s() / 4)):
            if time.monotonic() - self._began > self.allowed_s():
                self.late = True
                for each in list(self._sockets):
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._ended.set()
        for each in self._sockets:
            each.close()


@contextmanager
def line() -> Iterator[Line]:
    """Yield a line whose clock runs within the block."""
    made = Line()
    clock = threading.Thread(target=made.watch, daemon=True)
    clock.start()
    try:
        yield made
    finally:
        made.close()
        clock.join()


def opened(source: str, over: Line) -> HTTPResponse:
    """Return the response to a GET. Redirects must lead to http or https. Raises Refused and the errors of urllib."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _Plain(over),
        _Secure(over),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener.open(urllib.request.Request(source, headers={"User-Agent": "vqbet"}), timeout=TIMEOUT_S)


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, over: Line) -> None:
        super().__init__()
        self.over = over

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_made, HTTPConnection, self.over, req), req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, over: Line) -> None:
        super().__init__()
        self.over = over

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_made, HTTPSConnection, self.over, req), req)


def _made(kind: type[HTTPConnection], over: Line, req: urllib.request.Request, host: str, **rest: Any) -> Any:
    """Return a connection made over the line. A proxy makes its own connection, to a name that is checked here."""
    connection = kind(host, **rest)
    if req.has_proxy() or getattr(req, "_tunnel_host", None):
        wanted = urlsplit(req.full_url).hostname or ""
        _refuse_private(wanted, [wanted])
    else:
        connection._create_connection = over.connect  # type: ignore[attr-defined]  # a test sees that it is used
    return connection


def _connected(address: tuple[str, int], timeout: float) -> socket.socket:
    host, port = address
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    _refuse_private(host, [str(each[4][0]) for each in found])
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, place in found:
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(timeout)
            made.connect(place)
        except OSError as error:
            made.close()
            failure = error
        else:
            return made
    raise failure


def _refuse_private(host: str, addresses: list[str]) -> None:
    """Raise Refused where one of the host's addresses belongs to this machine, its network, or no host at all."""
    if os.environ.get(VARIABLE) == "1":
        return
    for address in addresses:
        if address.lower().rstrip(".") == "localhost" or private(address):
            raise Refused(
                f"{host} is {address}, an address of this machine or its network; where the source is meant to be "
                f"there, set {VARIABLE}=1"
            )


def private(address: str) -> bool:
    """Return whether an address is not public. False for a name, which the connecting side resolves."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = [found]
    if isinstance(found, ipaddress.IPv6Address):  # version 4 addresses embedded in version 6
        inner += [each for each in (found.ipv4_mapped, found.sixtofour, *(found.teredo or ())) if each is not None]
        inner += [ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)] if found in NAT64 else []
    return any(not each.is_global or each.is_multicast for each in inner)
