"""A policy server on loopback in a thread of the test, and small policies to serve."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from vqbet.policies.actor import Actor
from vqbet.serving.desk_line import DeskLine
from vqbet.serving.seats import Served
from vqbet.serving.server import Server, ServerOptions

DIGEST = "a" * 64
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Running:
    """A server that listens. stop: sets the end of its block, as a signal would."""

    server: Server
    loop: asyncio.AbstractEventLoop
    port: int
    stop: asyncio.Event

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def switch(self, served: Served) -> None:
        asyncio.run_coroutine_threadsafe(self._switch(served), self.loop).result(TIMEOUT_S)

    def end(self) -> None:
        """Begin to drain, and return at once."""
        with suppress(RuntimeError):  # it has stopped, and its loop is closed
            self.loop.call_soon_threadsafe(self.stop.set)

    async def _switch(self, served: Served) -> None:
        self.server.switch(served)


def served(actor: Actor, digest: str = DIGEST) -> Served:
    return Served.of(actor, digest, "fake@champion")


@contextmanager
def running(policy: Served | DeskLine, options: ServerOptions | None = None, *, port: int = 0) -> Iterator[Running]:
    """Run a server in a thread, on a port of loopback; 0: any free one."""
    options = replace(options or ServerOptions(grace_s=0.2), port=port)
    ready: Future[Running] = Future()

    async def serve() -> None:
        server, stop = Server(policy, options), asyncio.Event()
        async with server.listening() as port:
            ready.set_result(Running(server, asyncio.get_running_loop(), port, stop))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    found = ready.result(TIMEOUT_S)
    try:
        yield found
    finally:
        found.end()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive(), "the server did not stop"
