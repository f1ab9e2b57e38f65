"""The desk's line to a policy server that serves a session of trials: orders go there, signed statements come back.

msgpack and websockets, like a robot's connection, with another secret and another path.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import websockets
from websockets.sync.client import ClientConnection

from vqbet.contract import ServingError, Spec
from vqbet.files import reading
from vqbet.serving import connection, wire
from vqbet.serving.connection import Address, tls_context
from vqbet.signing.statements import Statement

PATH = "/desk"


@dataclass(frozen=True, slots=True)
class Arms:
    """Policies that a server has loaded for a plan of trials. public_key: base64, of the key that signs statements.

    plan: its sha256. The order of the digests says nothing.
    """

    digests: tuple[str, ...]
    public_key: str
    spec: Spec
    plan: str


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A server's statement about one trial, and its signature in base64, which nobody has verified yet."""

    statement: Statement
    signature: str


@final
class TrialLine:
    """Connection of a desk to its policy server; opened by the first call, and again by the next one after a fault.

    url: of the server, ws://host:port or wss://host:port. token: the desk's secret, not the robots'. tls: as of
    `client.connect`. timeout_s: most time of any call. Every call raises ServingError, in one sentence, where the
    server cannot be reached in time or refuses.
    """

    def __init__(
        self, url: str, token: str, *, tls: ssl.SSLContext | Path | str | None = None, timeout_s: float = 5.0
    ) -> None:
        if not token:
            raise ServingError("the desk needs its secret for the policy server; set VQBET_DESK_TOKEN, as there")
        self._address = Address(url, None, "", path=PATH)
        self._token, self.timeout_s = token, timeout_s
        self._tls = tls_context(tls, secure=self._address.secure)
        self._connection: ClientConnection | None = None

    def arms(self) -> Arms:
        """Return what the server has loaded."""
        answer = self._asked({"endpoint": "arms"})
        with self._answered(answer):
            return Arms(
                digests=tuple(_text(each) for each in answer["digests"]),
                public_key=_text(answer["public_key"]),
                spec=Spec.from_json(answer["spec"]),
                plan=_text(answer["plan"]),
            )

    def arm(self, *, plan: str, trial: str, robot: str, nonce: str, digest: str, key: str) -> SignedStatement:
        """Order the server to serve the policy of `digest` in a trial, and return its statement.

        plan: sha256. trial: the code. robot: its name at the server. nonce: fresh at every order. key: of the trial's
        commitment, hexadecimal. The statement is the server's word: verify it by `signing.statements.genuine`, and its
        fields, before it is believed. May be repeated for the same trial, as after a restart of the server.
        """
        order = {"plan": plan, "trial": trial, "robot": robot, "nonce": nonce, "digest": digest, "key": key}
        answer = self._asked({"endpoint": "arm", **order})
        with self._answered(answer):
            return SignedStatement(Statement.from_json(answer["statement"]), _text(answer["signature"]))

    def close(self) -> None:
        """Say good-bye; waits for at most half a second."""
        present, self._connection = self._connection, None
        if present is not None:
            present.close()

    def __enter__(self) -> TrialLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer. A connection that broke since the last call is opened again, once."""
        where = f"policy server {self._address.url}"
        try:
            if self._connection is not None:
                with suppress(websockets.ConnectionClosed, ConnectionError):
                    return self._exchanged(question)
                self._drop()
            return self._exchanged(question)
        except BaseException as error:
            self._drop()
            if isinstance(error, ServingError):
                raise ServingError(f"{where}: {error}") from error
            if said := connection.sentence(error, self.timeout_s):
                raise ServingError(f"{where}: {said}") from error
            raise

    def _exchanged(self, question: Mapping[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + self.timeout_s
        if self._connection is None:
            self._connection = connection.opened(
                self._address, token=self._token, tls=self._tls, deadline=deadline, timeout_s=self.timeout_s
            )
        self._connection.send(wire.encode(question))
        return connection.received(self._connection, deadline)

    def _answered(self, answer: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Return a block in which an answer that is not the server's becomes a sentence."""
        return reading.sentences(
            f"policy server {self._address.url}: answer {reading.short(dict(answer))}",
            ServingError,
            "install the same version of vqbet on both",
        )

    def _drop(self) -> None:
        present, self._connection = self._connection, None
        if present is not None:
            present.close_socket()


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value
