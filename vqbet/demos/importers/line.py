"""One HTTP request to a server that is not trusted: no address of this machine or its network, and an end to waiting.

A name is looked up once, and the connection is made to the address that was checked: a server of names that answers
otherwise the second time changes nothing. A whole transfer has a deadline that its bytes extend, since a server that
sends one byte a second is never late by the time that a single answer may take.
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

VARIABLE = "VQBET_PRIVATE_SOURCES"  # of the person who runs it, never of a parameter: "1" allows private addresses
TIMEOUT_S = 30.0  # for connecting, and for every further piece of the answer
GRACE_S = 60.0  # for the whole transfer, beside what its bytes may take
SLOWEST_BYTES_PER_S = 16 * 2**10
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Refused(Exception):
    """The sentence says why this address is not asked."""


class Line:
    """The connections of one transfer and its clock; `done`: the bytes of the body that have come."""

    def __init__(self) -> None:
        self.done = 0
        self.late = False
        self._began, self._ended = time.monotonic(), threading.Event()
        self._sockets: list[socket.socket] = []

    def allowed_s(self) -> float:
        return GRACE_S + self.done / SLOWEST_BYTES_PER_S

    def connect(self, address: tuple[str, int], timeout: Any = TIMEOUT_S, *rest: Any) -> socket.socket:
        """As `socket.create_connection`, but to a checked address. Raises Refused, OSError."""
        made = _connected(address, timeout)
        self._sockets.append(made.dup())  # TLS takes the socket itself over
        return made

    def watch(self) -> None:
        """Cut the connections when the time is over, from a thread of its own."""
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
    """A line whose clock runs within the block."""
    made = Line()
    clock = threading.Thread(target=made.watch, daemon=True)
    clock.start()
    try:
        yield made
    finally:
        made.close()
        clock.join()


def opened(source: str, over: Line) -> HTTPResponse:
    """The answer to a GET that may be redirected, but only to http and https. Raises Refused and what urllib raises."""
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
    """A connection that is made over the line; where a proxy is between, by the proxy, to a name checked here."""
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
    """Raises Refused where one of the host's addresses is of this machine, its network, or no host's at all."""
    if os.environ.get(VARIABLE) == "1":
        return
    for address in addresses:
        if address.lower().rstrip(".") == "localhost" or private(address):
            raise Refused(
                f"{host} is {address}, an address of this machine or its network; where the source is meant to be "
                f"there, set {VARIABLE}=1"
            )


def private(address: str) -> bool:
    """Whether an address is not one of the public internet; a name is none, and is looked up by whoever connects."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = [found]
    if isinstance(found, ipaddress.IPv6Address):  # addresses of version 4 in the clothes of version 6
        inner += [each for each in (found.ipv4_mapped, found.sixtofour, *(found.teredo or ())) if each is not None]
        inner += [ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)] if found in NAT64 else []
    return any(not each.is_global or each.is_multicast for each in inner)
