"""A websocket to a policy server with a deadline for every call: address, TLS, opening, receiving, faults in words.

For the robot and for the desk of a session of trials. numpy, msgpack and websockets only.
"""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import time
from pathlib import Path
from typing import Any, final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import websockets
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_websocket

from vqbet.contract import ServingError
from vqbet.files import reading
from vqbet.serving import wire

MOST_BYTES = 16 << 20  # of a frame from the server: a handshake or a chunk of actions is far smaller
PORTS = {"ws": 80, "wss": 443}
CLOSE_S = 0.5  # wait for the server's good-bye


@final
class Address:
    """Parts of a server's URL. path: instead of the URL's. Raises ServingError unless it is ws or wss://host:port."""

    def __init__(self, url: str, digest: str | None, robot: str, *, path: str = "") -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except (ValueError, AttributeError, TypeError) as error:
            raise ServingError(f"expected a server such as ws://127.0.0.1:8765, got {reading.short(url)}") from error
        if parts.scheme not in PORTS or not parts.hostname or parts.username is not None:
            raise ServingError(f"expected a server such as ws://127.0.0.1:8765, got {reading.short(url)}")
        wanted = {"digest": digest or "", "robot": robot}
        query = dict(parse_qsl(parts.query)) | {name: value for name, value in wanted.items() if value}
        self.host, self.port, self.secure = parts.hostname, port or PORTS[parts.scheme], parts.scheme == "wss"
        self.robot = query.get("robot", "")
        self.url = urlunsplit((parts.scheme, parts.netloc, path or parts.path or "/", urlencode(query), ""))


def tls_context(tls: ssl.SSLContext | Path | str | None, *, secure: bool) -> ssl.SSLContext | None:
    if not secure:
        if tls is not None:
            raise ServingError("tls was given for a ws:// address, whose connection is not encrypted; use wss://")
        return None
    if isinstance(tls, ssl.SSLContext):
        return tls
    try:
        return ssl.create_default_context(cafile=tls)
    except (OSError, ssl.SSLError) as error:
        raise ServingError(f"{tls}: expected the certificate authority's file (PEM): {error}") from error


def opened(
    address: Address, *, token: str | None, tls: ssl.SSLContext | None, deadline: float, timeout_s: float
) -> ClientConnection:
    """Return an open websocket. The socket is our own: no proxy stands between a robot and its policy."""
    plain = socket.create_connection((address.host, address.port), timeout=left(deadline))
    plain.settimeout(None)
    _limit_sends(plain, timeout_s)
    headers = {"Authorization": f"Bearer {token}"} if token else None
    return open_websocket(
        address.url,
        sock=plain,
        ssl=tls,
        compression=None,
        additional_headers=headers,
        open_timeout=left(deadline),
        close_timeout=CLOSE_S,
        max_size=MOST_BYTES,
        logger=_quiet(),
    )


def received(connection: ClientConnection, deadline: float) -> dict[str, Any]:
    """Return the next map from the server. Raises ServingError for the sentence of an error."""
    frame = connection.recv(left(deadline))
    if isinstance(frame, str):
        raise ServingError(f"the server refused: {reading.cut(frame, 400)}")
    message = wire.decode(frame, most=MOST_BYTES)
    if "error" in (message.get("type"), message.get("status")):
        raise ServingError(f"the server refused: {reading.cut(str(message.get('message', '')), 400)}")
    return message


def sentence(error: BaseException, timeout_s: float) -> str:
    """Return the reason of a fault of the network in words; "" for a fault of another kind."""
    if isinstance(error, websockets.InvalidStatus):
        body = (error.response.body or b"").decode("utf-8", "replace")
        return f"the server refused with HTTP {error.response.status_code}: {reading.cut(body, 400) or 'no reason'}"
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s; see whether the server runs and the network is up"
    if isinstance(error, websockets.ConnectionClosed):
        said = error.rcvd.reason if error.rcvd is not None else ""
        return f"the server closed the connection: {reading.cut(said, 400) or 'no reason given'}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {reading.cut(str(error))}; check certificate, name and authority"
    if isinstance(error, OSError):
        return f"{error.strerror or error}; see whether the server runs there: vqbet serve"
    if isinstance(error, websockets.WebSocketException):
        return f"no websocket server of ours answers: {reading.cut(str(error))}"
    return ""


def left(deadline: float) -> float:
    """Return the seconds until a time of the monotonic clock. Raises TimeoutError where none are left."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _quiet() -> logging.Logger:
    """Return the logger of websockets, silent about frames that arrive while a connection is dropped."""
    logger = logging.getLogger(f"{__name__}.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger


def _limit_sends(plain: socket.socket, timeout_s: float) -> None:
    """Let a send fail after `timeout_s`, which websockets has no option for: a frozen server empties no buffer."""
    seconds, fraction = divmod(timeout_s, 1.0)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(seconds), int(fraction * 1e6)))
