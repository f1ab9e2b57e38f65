"""A policy server that speaks the wire and computes nothing: each action says for which episode and step it is.

Row i of a plan made at step o is (seed / 1000, (o + i) / 1000, o / 1000): the episode, the step that the row is for,
and the step it was planned at. As a process: `python -m tests.support.fake_server <port>`.
"""

from __future__ import annotations

import http
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Request, Response, ServerConnection, serve

from vqbet.contract import Channel, Spec
from vqbet.serving import wire
from vqbet.serving.handshake import KEY, Handshake

DIGEST = "ab" * 32
SPEC = Spec(
    task="told",
    observation=(Channel("x", "m", -10.0, 10.0), Channel("y", "m", -10.0, 10.0)),
    action=tuple(Channel(name, "m", 0.0, 10.0) for name in ("episode", "step", "planned")),
    control_hz=50.0,
    action_kind="absolute",
    frame="table",
)
HANDSHAKE = Handshake(digest=DIGEST, reference="told@champion", spec=SPEC, window=2, chunk=4, execute="first")
Answers = Callable[[dict[str, Any], "Fake"], Any]  # a map or text to send, or None: nothing at all


@dataclass
class Fake:
    """Behaviour of a server. answers: replaces the answers to requests. asked: every request so far."""

    handshake: Handshake = HANDSHAKE
    answers: Answers | None = None
    metadata: dict[str, Any] | str | None = None  # instead of the handshake's
    asked: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    robots: set[str] = field(default_factory=set)  # names in use
    token: str = ""
    open: list[ServerConnection] = field(default_factory=list)

    def cut(self) -> None:
        """Break every connection, without a good-bye."""
        for connection in self.open:
            connection.close_socket()

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        named = {name: values[-1] for name, values in parse_qs(urlsplit(request.path).query).items()}
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "a token is required")
        if named.get("digest", self.handshake.digest) != self.handshake.digest:
            return connection.respond(http.HTTPStatus.NOT_FOUND, f"{named['digest'][:12]} is not served here")
        if named.get("robot") in self.robots:
            return connection.respond(http.HTTPStatus.CONFLICT, f"robot {named['robot']!r} is connected already")
        return None

    def talk(self, connection: ServerConnection) -> None:
        self.connections += 1
        self.open.append(connection)
        try:
            first = self.handshake.metadata() if self.metadata is None else self.metadata
            connection.send(first if isinstance(first, str) else wire.encode(first))
            seed = 0
            for frame in connection:
                request = wire.decode(frame, most=1 << 20)
                self.asked.append(request)
                seed = request.get("seed", seed)
                answer = self.answers(request, self) if self.answers else self.answer(request, seed)
                if answer is not None:
                    connection.send(answer if isinstance(answer, str) else wire.encode(answer))
        except ConnectionClosed:
            return

    def answer(self, request: dict[str, Any], seed: int = 0) -> dict[str, Any]:
        if request.get("endpoint") == "reset":
            return {"status": "reset successful", KEY: {"digest": self.handshake.digest}}
        step = request["step"]
        row = np.arange(self.handshake.chunk, dtype=np.float32)
        actions = np.zeros((self.handshake.chunk, len(self.handshake.spec.action)), np.float32)
        actions[:, :3] = np.stack([np.full_like(row, seed), step + row, np.full_like(row, step)], axis=1)[
            :, : actions.shape[1]
        ]
        said = {
            "step": step,
            "seed": seed,
            "codes": [1, 2],
            "signals": {"entropy": 0.5},
            "digest": self.handshake.digest,
        }
        return {"actions": actions / 1000, "server_timing": {"infer_ms": 1.0}, KEY: said}

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[str]:
        """Serve on loopback for the time of a `with`; yield the URL."""
        with serve(self.talk, "127.0.0.1", port, compression=None, process_request=self.refuse) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
            finally:
                server.shutdown()
                thread.join()
                self.cut()


def main(port: str) -> None:
    with serve(Fake().talk, "127.0.0.1", int(port), compression=None) as server:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
