"""Server of a policy: websocket and msgpack as openpi's clients speak them, with our handshake in the metadata.

One thread. The policy is computed in the event loop: a call takes about a millisecond, and handing it to a thread and
back would take longer than the rest of the way. Requests that arrive during a call are answered together by the next.
"""

from __future__ import annotations

import asyncio
import http
import logging
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final
from urllib.parse import urlsplit

from websockets.asyncio.server import Server as Listener
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as Opening
from websockets.http11 import Response

from vqbet.contract import ServingError, VqbetError
from vqbet.serving import admission, desk_line, requests, wire
from vqbet.serving.connected import ConnectedRobot, ServedEpisode
from vqbet.serving.desk_line import DeskLine
from vqbet.serving.handshake import Handshake
from vqbet.serving.meeting import Meeting
from vqbet.serving.metrics import CONTENT_TYPE, Metrics
from vqbet.serving.requests import Dialect
from vqbet.serving.roster import Alone, Roster, Veil
from vqbet.serving.seats import Ask, Served

LOOKS = 4
ERROR, AWAY, POLICY = 1011, 1001, 1008  # close codes of RFC 6455
WRONG = "the server failed at this request; its log says why"
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Settings of a server. token, certificate and key: required beyond loopback, and optional. robots: episodes at
    once. singular: answer with `action` (A,) in place of `actions` (H, A), as BEHAVIOR's evaluator wants.

    Deadlines in seconds: to open a connection, between two requests, to take an answer, for running episodes after a
    stop, and between two signs of life of a robot that sends nothing. They are looked at LOOKS times in their length.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    certificate: Path | None = None
    key: Path | None = None
    robots: int = 8
    singular: bool = False
    opening_s: float = 5.0
    idle_s: float = 60.0
    writing_s: float = 5.0
    grace_s: float = 30.0
    alive_s: float = 5.0


@final
class Server:
    """Policy server. desk: serves the arms of blind trials, in place of one policy.

    Raises ServingError for settings that are refused.
    """

    def __init__(
        self, served: Served | DeskLine, options: ServerOptions, *, say: Callable[[str], None] = LOG.info
    ) -> None:
        admission.refuse_unsafe(options.host, options.token, options.certificate, options.key)
        self.options, self.metrics, self._say = options, Metrics(), say
        self._desk = served if isinstance(served, DeskLine) else None
        self._roster: Roster = Alone(served, options.robots) if isinstance(served, Served) else served.arms
        self._most = admission.frame_limit(self.served.handshake)
        self._robots: set[ConnectedRobot] = set()
        self._meeting = Meeting(Metrics() if self._desk else self.metrics)  # how long plans take tells policies apart
        self._running = 0  # episodes
        self._draining = False
        self._changed = asyncio.Event()  # set when an episode or a connection ended

    @property
    def served(self) -> Served:
        return self._roster.shown

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Serve inside the block, then drain. Yields the port. Raises ServingError where it cannot be had."""
        listener = await self._listen()
        watching = asyncio.create_task(self._watch())
        try:
            yield next(iter(listener.sockets)).getsockname()[1]
        finally:
            await self._drain(listener)
            watching.cancel()

    async def run(self, ready: Callable[[int], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends running episodes at once."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, stop)
        try:
            async with self.listening() as port:
                ready(port)
                await stop.wait()
                self._say("stopping: running episodes may end, new ones are refused; once more ends them now")
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def switch(self, served: Served) -> None:
        """Serve another policy from the next episode on; running ones end with theirs. To be called in the loop."""
        if admission.frame_limit(served.handshake) > self._most:
            raise ServingError("the new policy takes larger frames than this server reads; start it again")
        self._roster = Alone(served, self.options.robots)
        self.metrics.count("switches")
        self._say(f"from the next episode on: {served.handshake.reference}, digest {served.handshake.digest}")

    # --- opening and closing -----------------------------------------------------------------------------------------

    async def _listen(self) -> Listener:
        options = self.options
        tls = admission.tls_context(options.certificate, options.key) if options.certificate and options.key else None
        try:
            return await serve(
                self._talk,
                options.host,
                options.port,
                process_request=self._admit,
                origins=[None],  # no web page may drive a robot
                compression=None,
                max_size=self._most,
                open_timeout=options.opening_s,
                ping_interval=options.alive_s,
                ping_timeout=2 * options.alive_s,
                close_timeout=options.writing_s,
                server_header=None,
                ssl=tls,
                logger=admission.quiet(),
            )
        except OSError as error:
            raise ServingError(
                f"{options.host}:{options.port}: cannot be listened on: {error.strerror}; choose another --port"
            ) from error

    async def _drain(self, listener: Listener) -> None:
        """Refuse what is new, let running episodes end for at most grace_s, then close."""
        self._draining = True
        try:
            async with asyncio.timeout(self.options.grace_s):
                while self._running:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        listener.close(code=AWAY, reason="the server stops")
        await listener.wait_closed()

    def _stop(self, stop: asyncio.Event) -> None:
        if stop.is_set():
            for robot in self._robots:
                self._end(robot)
        stop.set()

    async def _admit(self, socket: ServerConnection, opening: Opening) -> Response | None:
        """Answer /healthz, /readyz and /metrics; return a refusal, or None to open the connection."""
        url = urlsplit(opening.path)
        if url.path == "/healthz":
            return socket.respond(http.HTTPStatus.OK, "OK\n")
        if url.path == "/readyz":
            return self._ready(socket)
        at_desk = url.path == desk_line.PATH
        status, sentence = self._desk_refusal(opening) if at_desk else self._refusal(opening, url.query)
        if sentence:
            self.metrics.count("refused_connections")
            return socket.respond(status, sentence + "\n")
        if url.path == "/metrics":
            return self._measured(socket)
        return None

    def _ready(self, socket: ServerConnection) -> Response:
        if self._draining:
            return socket.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "stopping\n")
        return socket.respond(http.HTTPStatus.OK, "OK\n")

    def _refusal(self, opening: Opening, query: str) -> tuple[http.HTTPStatus, str]:
        """Return why a connection is refused; an empty sentence to let it in."""
        said = opening.headers.get_all("Authorization")
        if self.options.token and not admission.has_token(said, self.options.token):
            return http.HTTPStatus.UNAUTHORIZED, "expected the header Authorization: Bearer with this server's token"
        if self._draining:
            return http.HTTPStatus.SERVICE_UNAVAILABLE, "the server stops; connect to another one, or later"
        try:
            digest, name = admission.wanted(query)
        except ServingError as error:
            return http.HTTPStatus.BAD_REQUEST, str(error)
        if digest and digest != self.served.handshake.digest:
            return http.HTTPStatus.NOT_FOUND, admission.another(digest, self.served.handshake)
        if name and any(robot.name == name for robot in self._robots):
            return http.HTTPStatus.CONFLICT, f"robot {name} is connected already; two robots need two names"
        if len(self._robots) >= 4 * self.options.robots:
            return (
                http.HTTPStatus.SERVICE_UNAVAILABLE,
                f"{len(self._robots)} robots are connected, no more are taken",
            )
        return http.HTTPStatus.OK, ""

    def _desk_refusal(self, opening: Opening) -> tuple[http.HTTPStatus, str]:
        if self._desk is None:
            return http.HTTPStatus.NOT_FOUND, "this server serves no trials; start it by vqbet trials serve"
        return self._desk.refusal(opening.headers.get_all("Authorization"))

    def _measured(self, socket: ServerConnection) -> Response:
        gauges = {
            "vqbet_robots": ("Open connections.", len(self._robots)),
            "vqbet_episodes_running": ("Episodes now.", self._running),
            "vqbet_episodes_limit": ("Episodes at once, at most.", self.options.robots),
            "vqbet_draining": ("1 while the server stops.", self._draining),
        }
        said = self.served.handshake
        response = socket.respond(http.HTTPStatus.OK, self.metrics.text(gauges, said.digest, said.reference))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = CONTENT_TYPE
        return response

    # --- a connection ------------------------------------------------------------------------------------------------

    async def _talk(self, socket: ServerConnection) -> None:
        """Serve one robot until it goes, is silent for too long, or makes an error."""
        assert socket.request is not None
        url = urlsplit(socket.request.path)
        if self._desk is not None and url.path == desk_line.PATH:
            await self._desk.talk(socket)
            return
        digest, name = admission.wanted(url.query)
        if name and any(robot.name == name for robot in self._robots):  # two that were opening at the same time
            await socket.close(POLICY, f"robot {name} is connected already")
            return
        talk, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert talk is not None
        dialect = requests.spoken({}, path=url.path)
        robot = ConnectedRobot(
            socket, name, digest, self.served, url.path, dialect, talk, loop.time() + self.options.idle_s
        )
        self._robots.add(robot)
        try:
            await self._send(robot, wire.encode(robot.met.handshake.metadata()))
            while await self._turn(robot):
                pass
        except ConnectionClosed:
            pass
        except asyncio.CancelledError:
            if not robot.late:
                raise
            talk.uncancel()
            self.metrics.count("idle")
            await socket.close(AWAY, "nothing came, or no answer was taken, for too long")
        except Exception:
            LOG.exception("connection of robot %r", robot.name)
            self.metrics.count("failures")
            await socket.close(ERROR, WRONG)
        finally:
            self._end(robot)
            self._robots.discard(robot)
            self._changed.set()

    async def _turn(self, robot: ConnectedRobot) -> bool:
        """Answer one request. Returns whether the connection goes on."""
        robot.due = asyncio.get_running_loop().time() + self.options.idle_s
        frame = await robot.socket.recv()
        began = time.perf_counter()
        try:
            answer = await self._answered(robot, frame, began)
        except Exception as error:
            return await self._refuse(robot, error)
        await self._send(robot, answer)
        total = time.perf_counter() - began
        robot.total_ms = 1000 * total
        self.metrics.served.observe(total)
        return True

    async def _answered(self, robot: ConnectedRobot, frame: bytes | str, began: float) -> bytes | str:
        message = wire.decode(frame, most=self._most)
        robot.dialect = requests.spoken(message, path=robot.path, before=robot.dialect if robot.asked else None)
        robot.asked = True
        request = requests.understood(message, robot.dialect, self._speaks_of(robot))
        if request.reset or robot.episode is None or request.session != robot.episode.session:
            self._begin(robot, request)
        elif request.seed is not None or request.goal is not None:
            raise ServingError("seed and goal belong to the first request of an episode, or to its reset; reset first")
        episode = robot.episode
        assert episode is not None
        if request.reset:
            self.metrics.count("resets")
            return requests.restarted(robot.dialect, episode.seed, episode.part.digest)
        ask = self._ask(episode, request)
        if episode.part.veil is not None:
            return await self._unseen(episode, ask, episode.part.veil, began)
        answer, policy_s = await self._meeting.computed(episode.seats, ask, alone=self._running == 1)
        self.metrics.count("requests")
        timing = {"infer_ms": 1000 * policy_s}
        if robot.total_ms is not None:
            timing["prev_total_ms"] = robot.total_ms
        return requests.reply(answer, timing, singular=self.options.singular)

    async def _unseen(self, episode: ServedEpisode, ask: Ask, veil: Veil, began: float) -> bytes:
        """Return the frame of an answer in a blind trial. Neither its time nor an error tells which policy acts."""
        try:
            answer, _ = await self._meeting.computed(episode.seats, ask, alone=self._running == 1)
        except VqbetError as error:
            LOG.error("plan of a blind trial", exc_info=error)
            raise ServingError("the policy of this trial made no plan; the server's log says why") from error
        self.metrics.count("requests")
        await asyncio.sleep(max(0.0, began + veil.pace_s - time.perf_counter()))
        return requests.reply(veil.veiled(answer), {}, singular=self.options.singular)

    def _speaks_of(self, robot: ConnectedRobot) -> Handshake:
        """Return the handshake that a request must fit: of the running episode, else of the next one."""
        return robot.episode.seats.served.handshake if robot.episode else self.served.handshake

    def _begin(self, robot: ConnectedRobot, request: requests.Request) -> None:
        """End the robot's episode and start the next one, with the policy that is served now."""
        if self._draining:
            raise ServingError("the server stops and starts no more episodes; connect to another one, or later")
        now = self.served
        if robot.named and robot.named != now.handshake.digest:
            raise ServingError(admission.another(robot.named, now.handshake) + "; connect again")
        if differing := robot.met.change(now):
            raise ServingError(f"another policy is served now, whose {differing} is not the same; connect again")
        part = self._roster.part(robot.name, request.trial)
        self._end(robot)
        seed = secrets.randbits(63) if request.seed is None else request.seed
        row = part.seats.take(seed, request.goal)
        own = request.own or self.options.singular
        robot.episode = ServedEpisode(part, row, seed, request.session, own)
        self._running += 1
        self.metrics.count("episodes")

    def _end(self, robot: ConnectedRobot) -> None:
        if robot.episode is not None:
            robot.episode.seats.release(robot.episode.row)
            robot.episode = None
            self._running -= 1
            self._changed.set()

    def _ask(self, episode: ServedEpisode, request: requests.Request) -> Ask:
        """Return what to compute. Raises ServingError where robot and server count differently.

        A client that counts no steps may play one action of a chunk or all of them. The bundle's rule needs every
        control step's observation, so such a client gets a new plan each time, as it would be executed.
        """
        assert request.state is not None
        counted, row = episode.seats.step(episode.row), episode.row
        episode.own |= request.own
        observed = episode.seats.seen(row, request.state)
        shown = episode.seats.shown(row, request)
        if request.execute == "robot":
            return Ask(row, observed, "robot", counted if request.step is None else request.step, *shown)
        if request.step is not None and request.step != counted:
            raise ServingError(
                f"step: expected {counted}, the number of requests answered in this episode, got {request.step}; one "
                "request per control step, or execute the plans on the robot (execute: robot)"
            )
        return Ask(row, observed, "server" if episode.own else "chunk", counted, *shown)

    async def _refuse(self, robot: ConnectedRobot, error: Exception) -> bool:
        """Say an error to the robot. Returns whether its dialect goes on after one."""
        if isinstance(error, ConnectionClosed):
            raise error
        known = isinstance(error, VqbetError)
        self.metrics.count("refused_requests" if known else "failures")
        if not known:
            LOG.error("request of robot %r", robot.name, exc_info=error)
        await self._send(robot, requests.refused(robot.dialect, str(error) if known else WRONG))
        if robot.dialect is Dialect.VLLM:
            return True
        await robot.socket.close(ERROR, "refused; the frame before says why")
        return False

    async def _send(self, robot: ConnectedRobot, frame: bytes | str) -> None:
        robot.due = asyncio.get_running_loop().time() + self.options.writing_s
        await robot.socket.send(frame)

    async def _watch(self) -> None:
        """Let go of robots that are late. One look at all of them is cheaper than a timer per frame."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(self.options.idle_s, self.options.writing_s) / LOOKS)
            for robot in self._robots:
                if not robot.late and loop.time() > robot.due:
                    robot.late = True
                    robot.talk.cancel()
