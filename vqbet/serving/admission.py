"""Admission of connections to a policy server: token, digest and name of a robot, TLS, and the size of frames."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import ssl
from pathlib import Path
from urllib.parse import parse_qsl

from vqbet.contract import ServingError
from vqbet.files import reading
from vqbet.files.manifest import SHA256
from vqbet.serving.handshake import Handshake

MOST_BYTES = 64 << 20  # of any frame
NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)


def frame_limit(handshake: Handshake) -> int:
    """Return the most bytes of a request. Raises ServingError where a policy needs more than any server reads."""
    if handshake.frame_bytes > MOST_BYTES:
        sizes = ", ".join(f"{camera.name} {camera.height} x {camera.width}" for camera in handshake.spec.cameras)
        raise ServingError(
            f"cameras {sizes}: a request with {handshake.window} pictures of each has {handshake.frame_bytes} bytes, "
            f"at most {MOST_BYTES} are read; train on smaller pictures"
        )
    return handshake.frame_bytes


def refuse_unsafe(host: str, token: str, certificate: Path | None, key: Path | None) -> None:
    """Raise ServingError for an address beyond this machine without a token, and for half of TLS."""
    if not loopback(host) and not token:
        raise ServingError(
            f"host {host}: anybody in this network could drive the robot; expected 127.0.0.1, or a token in "
            "VQBET_TOKEN (for example of `openssl rand -hex 24`), and better a certificate too"
        )
    if (certificate is None) != (key is None):
        raise ServingError("TLS needs two files: expected a certificate and its key, got one of them")


def loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def has_token(said: list[str], token: str) -> bool:
    """Return whether the Authorization headers of a request are exactly one, with this token."""
    words = said[0].split(" ", 1) if len(said) == 1 else []
    known = len(words) == 2 and words[0].lower() in ("bearer", "api-key")
    return known and hmac.compare_digest(words[1].strip().encode("utf-8", "surrogateescape"), token.encode())


def wanted(query: str) -> tuple[str, str]:
    """Return digest and robot's name from the query of a URL. Raises ServingError for anything else in it."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=8)
    except ValueError as error:
        raise ServingError(f"query: expected digest=... and robot=..., got {reading.short(query)}") from error
    said = dict(pairs)
    if len(said) != len(pairs) or said.keys() - {"digest", "robot"}:
        raise ServingError(f"query: expected digest=... and robot=..., each once, got {reading.short(query)}")
    digest, name = said.get("digest", ""), said.get("robot", "")
    if digest and not SHA256.fullmatch(digest):
        raise ServingError(f"digest: expected 64 characters of 0-9 and a-f, got {reading.short(digest)}")
    if name and not NAME.fullmatch(name):
        raise ServingError(f"robot: expected at most 64 letters, digits and _ . : -, got {reading.short(name)}")
    return digest, name


def another(digest: str, handshake: Handshake) -> str:
    """Return the sentence for a digest that is not served."""
    return f"digest {digest} was asked for; this server serves {handshake.reference}, digest {handshake.digest}"


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context of a TLS server. Raises ServingError where the files are not what they should be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ServingError(f"{certificate}, {key}: not a certificate and its key in PEM: {error}") from error
    return context


def quiet() -> logging.Logger:
    """Return the logger of websockets, silent about strangers that hang up while a connection opens."""
    logger = logging.getLogger(f"{__name__}.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger
