"""A policy that lives elsewhere: the robot's end of the connection to `vqbet serve`.

numpy, msgpack and websockets only. Every call has a deadline. After any fault the connection is of no use any more,
since a late answer could be taken for the answer to a later question; the next `start` opens another one.
"""

from __future__ import annotations

import http
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import websockets
from jaxtyping import Float, Int, UInt8
from websockets.sync.client import ClientConnection

from vqbet.contract import Pictures, ServingError, Spec
from vqbet.files import reading
from vqbet.files.manifest import SHA256
from vqbet.serving import connection, wire
from vqbet.serving.cameras import Shown, checked, keyed
from vqbet.serving.connection import Address, tls_context
from vqbet.serving.handshake import KEY, Handshake

BETWEEN_S = 0.05  # tries to connect under a name that the server still holds for the connection that broke


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to one question: a chunk of H actions in physical units, planned at `step` of the episode.

    codes: Q numbers that identify the behaviour of the chunk. signals: how sure the policy was. infer_s: the server's
    own time.
    """

    chunk: Float[np.ndarray, "H A"]  # float32
    codes: tuple[int, ...]
    signals: Mapping[str, float]
    step: int
    infer_s: float


def connect(
    url: str,
    *,
    digest: str | None = None,
    spec: Spec | None = None,
    robot: str = "",
    token: str | None = None,
    tls: ssl.SSLContext | Path | str | None = None,
    timeout_s: float = 2.0,
) -> RemotePolicy:
    """Return the policy served at `url`, ws://host:port or wss://host:port.

    digest: the only bundle to be accepted; None: the one that is served. spec: of this robot, control rate included.
    robot: a name that no other robot has at this server. tls: the certificate authority's file of a wss address, or a
    context; None: those that this machine trusts. timeout_s: most time of any call.

    Raises ServingError, in one sentence, where the server cannot be reached in time, refuses, or serves another policy.
    """
    policy = RemotePolicy(url, digest=digest, spec=spec, robot=robot, token=token, tls=tls, timeout_s=timeout_s)
    policy.open()
    return policy


@final
class RemotePolicy:
    """One connection, one episode at a time: `start` an episode, then call `act` or `plan` once per control step.

    Made by `connect`. `act` lets the server execute the bundle's rule and keep the history. `plan` returns a whole
    chunk, planned from a history that the robot keeps; `serving.player` plays it. Every call blocks for at most about
    `timeout_s`, and raises ServingError for a fault of network, server or answer.
    """

    def __init__(
        self,
        url: str,
        *,
        digest: str | None,
        spec: Spec | None,
        robot: str,
        token: str | None,
        tls: ssl.SSLContext | Path | str | None,
        timeout_s: float,
    ) -> None:
        self._address = Address(url, digest, robot)
        self._expected, self._pinned, self._token, self.timeout_s = spec, digest, token, timeout_s
        self._tls = tls_context(tls, secure=self._address.secure)
        self._connection: ClientConnection | None = None
        self._handshake: Handshake | None = None
        self._held = False  # a name that the server may not have given back yet
        self._step = -1  # no episode
        self._sent: list[Shown] = []  # pictures of the T steps of the last plan, which the server has

    @property
    def handshake(self) -> Handshake:
        if self._handshake is None:
            raise ServingError(f"{self._address.url}: not connected yet; call vqbet.serving.client.connect")
        return self._handshake

    @property
    def spec(self) -> Spec:
        return self.handshake.spec

    @property
    def goal(self) -> tuple[str, ...]:
        return self.handshake.goal

    def open(self) -> None:
        """Connect, and check the handshake. Raises ServingError."""
        deadline = time.monotonic() + self.timeout_s
        self._drop()
        with self._in_words("connect"):
            while True:
                try:
                    self._connection = self._connected(deadline)
                    break
                except websockets.InvalidStatus as error:
                    taken = error.response.status_code == http.HTTPStatus.CONFLICT
                    if not (taken and self._held and time.monotonic() + BETWEEN_S < deadline):
                        raise
                    time.sleep(BETWEEN_S)
            self._held = bool(self._address.robot)
            handshake = Handshake.of(connection.received(self._connection, deadline))
            self._refuse(handshake)
        self._handshake = handshake

    def start(self, seed: int, goal: Float[np.ndarray, " C"] | None = None, *, trial: str = "") -> None:
        """Start an episode; connects again where the connection broke, or where the server changed its policy.

        trial: the code of a blind trial; the handshake's digest is then the server's commitment to the policy.

        Raises ServingError for a goal that is not finite or of other channels, an invalid seed, and as `open`.
        """
        self._step, self._sent = -1, []
        opening = self._opening(seed, goal) | ({"trial": trial} if trial else {})
        answer: Mapping[str, Any] = {}
        if self._connection is not None:
            with suppress(ServingError):  # closed since the last episode, or of a policy that is served no more
                answer = self._asked(opening, "start")
        if not answer:
            self.open()
            answer = self._asked(opening, "start")
        if answer.get("status") != "reset successful":
            self._drop()
            raise ServingError(f"start: expected that the server begins an episode, got {reading.short(answer)}")
        served = answer.get(KEY)
        if trial:
            self._handshake = replace(self.handshake, digest=_committed(served))
        elif isinstance(served, Mapping) and served.get("digest", self.handshake.digest) != self.handshake.digest:
            self.open()  # another champion since: another handshake
            self._asked(opening, "start")
        self._step = 0

    def act(
        self,
        observation: Float[np.ndarray, " D"],
        cameras: Mapping[str, UInt8[np.ndarray, "height width 3"]] | None = None,
    ) -> Float[np.ndarray, " A"]:
        """Return the action of this control step, as the bundle's own rule executes it on the server.

        cameras: one picture of each camera of the spec, RGB.
        """
        shown = checked(self.spec.cameras, cameras or {})
        asked = {"state": self._state(observation, 1), **keyed(shown), "step": self._running()}
        self._sent = []
        return np.array(self._replied(asked, "act").chunk[0])

    def plan(self, observed: Float[np.ndarray, "T D"], step: int, cameras: Sequence[Shown] = ()) -> Reply:
        """Return a chunk planned at `step` from the last T observations, oldest first; not clamped, not converted.

        cameras: for each of the T steps, one picture of each camera of the spec. Steps with the same object share its
        pictures, which are sent once in an episode while they are among the last T.
        """
        self._running()
        asked = {"state": self._state(observed, 2), "step": int(step), "execute": "robot"}
        if self.spec.cameras or cameras:
            asked |= self._unsent(cameras)
        reply = self._replied(asked, "plan", step)
        self._sent = list(cameras)
        return reply

    def close(self) -> None:
        """Say good-bye; waits for at most CLOSE_S."""
        present, self._connection, self._step = self._connection, None, -1
        if present is not None:
            present.close()

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self, deadline: float) -> ClientConnection:
        return connection.opened(
            self._address, token=self._token, tls=self._tls, deadline=deadline, timeout_s=self.timeout_s
        )

    def _refuse(self, handshake: Handshake) -> None:
        """Raise ServingError unless this is the digest and the spec that the robot expects."""
        if self._pinned is not None and handshake.digest != self._pinned:
            raise ServingError(
                f"expected the bundle with digest {self._pinned[:12]}, the server has {handshake.digest[:12]} "
                f"({reading.cut(handshake.reference)}); serve that bundle, or ask for this one"
            )
        if self._expected is not None and (differences := self._expected.differences(handshake.spec)):
            raise ServingError(
                f"{reading.cut(handshake.reference)} was not made for this robot (here) but for another (there): "
                f"{'; '.join(differences)}"
            )

    def _opening(self, seed: int, goal: np.ndarray | None) -> dict[str, Any]:
        """Return the question that begins an episode."""
        if not (isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and 0 <= seed < 2**63):
            raise ServingError(f"seed: expected a whole number from 0 to 2^63 - 1, got {reading.short(seed)}")
        asked: dict[str, Any] = {"endpoint": "reset", "seed": int(seed)}
        given = np.zeros(0, np.float32) if goal is None else np.asarray(goal)
        if given.shape != (len(self.goal),) or given.dtype.kind not in "fiu" or not np.isfinite(given).all():
            raise ServingError(
                f"goal: expected a finite number for each of ({', '.join(self.goal) or 'it takes no goal'}), got "
                f"{reading.short(given.tolist())}"
            )
        return asked | ({"goal": given.astype(np.float32)} if self.goal else {})

    def _running(self) -> int:
        """Return the number of this control step."""
        if self._step < 0:
            raise ServingError("no episode runs on this connection; call start(seed) or start(seed, goal) first")
        step = self._step
        self._step += 1
        return step

    def _state(self, observation: np.ndarray, axes: int) -> Float[np.ndarray, "..."]:
        channels = len(self.spec.observation)
        value = np.asarray(observation)
        expected = (channels,) if axes == 1 else (self.handshake.window, channels)
        if value.shape != expected or value.dtype.kind not in "fiu":
            raise ServingError(
                f"observation: expected real numbers of shape {expected}, got {value.dtype} {value.shape}"
            )
        return value.astype(np.float32)

    def _unsent(self, cameras: Sequence[Shown]) -> dict[str, Any]:
        """Return the pictures that the server does not have from the request before, and the place of each step's."""
        if len(cameras) != self.handshake.window:
            raise ServingError(f"cameras: expected pictures of {self.handshake.window} steps, got {len(cameras)}")
        had = {id(one): place - len(self._sent) for place, one in enumerate(self._sent)}
        new = {id(one): one for one in cameras if id(one) not in had}
        had |= {key: place for place, key in enumerate(new)}
        each = [checked(self.spec.cameras, one) for one in new.values()]
        stacked = {camera.name: np.stack([one[camera.name] for one in each]) for camera in self.spec.cameras if each}
        return {**keyed(stacked), "pictures": [had[id(one)] for one in cameras]}

    def _replied(self, asked: Mapping[str, Any], call: str, step: int | None = None) -> Reply:
        answer = self._asked(asked, call)
        try:
            return _understood(answer, self.handshake, asked["step"] if step is None else step)
        except ServingError as error:
            self._drop()
            raise ServingError(f"{call}: {self._address.url}: {error}") from error

    def _asked(self, question: Mapping[str, Any], call: str) -> dict[str, Any]:
        deadline = time.monotonic() + self.timeout_s
        with self._in_words(call):
            if self._connection is None:
                raise ServingError("the connection is broken; start the next episode")
            self._connection.send(wire.encode(question))
            return connection.received(self._connection, deadline)

    @contextmanager
    def _in_words(self, call: str) -> Iterator[None]:
        """Drop the connection after any fault in the block, and raise it as ServingError."""
        where = f"{call}: {self._address.url}"
        try:
            yield
        except BaseException as error:
            self._drop()
            if isinstance(error, ServingError):
                raise ServingError(f"{where}: {error}") from error
            if sentence := connection.sentence(error, self.timeout_s):
                raise ServingError(f"{where}: {sentence}") from error
            raise

    def _drop(self) -> None:
        """Leave the connection without a good-bye, so that nobody waits for a server that says nothing."""
        present, self._connection, self._step = self._connection, None, -1
        if present is not None:
            present.close_socket()


@final
class OneRow:
    """A `contract.Policy` of one episode at a time that asks a server, such as `evaluation.rollout` plays."""

    def __init__(self, remote: RemotePolicy) -> None:
        self._remote = remote

    @property
    def spec(self) -> Spec:
        return self._remote.spec

    @property
    def goal(self) -> tuple[str, ...]:
        return self._remote.goal

    def reset(self, seeds: Int[np.ndarray, " 1"], goals: Float[np.ndarray, "1 C"] | None = None) -> None:
        """Start an episode. Raises ServingError for more than one."""
        if len(seeds) != 1:
            raise ServingError(f"a connection has one episode at a time, got {len(seeds)} seeds; play them in turn")
        self._remote.start(int(seeds[0]), None if goals is None else goals[0])

    def act(
        self, observation: Float[np.ndarray, "1 D"], rows: Int[np.ndarray, " 1"], cameras: Pictures | None = None
    ) -> Float[np.ndarray, "1 A"]:
        return self._remote.act(observation[0], {name: each[0] for name, each in (cameras or {}).items()})[None]


def _committed(served: Any) -> str:
    """Return the commitment in the answer to a reset. Raises ServingError where the server serves no trials."""
    digest = served.get("digest") if isinstance(served, Mapping) else None
    if type(digest) is not str or not SHA256.fullmatch(digest):
        raise ServingError(f"start: expected the commitment of a trial in the answer, got {reading.short(served)}")
    return digest


def _understood(answer: Mapping[str, Any], handshake: Handshake, step: int) -> Reply:
    """Return the reply in an answer. Raises ServingError unless it is of this policy, this step and this shape."""
    said, chunk = answer.get(KEY), answer.get("actions")
    expected = (handshake.chunk, len(handshake.spec.action))
    if not isinstance(said, Mapping) or not isinstance(chunk, np.ndarray):
        raise ServingError(f"expected actions and {KEY!r} in the answer, got the keys {reading.short(sorted(answer))}")
    if chunk.shape != expected or chunk.dtype != np.float32:
        raise ServingError(f"actions: expected float32 of shape {expected}, got {chunk.dtype} {chunk.shape}")
    if said.get("digest") != handshake.digest:
        raise ServingError(f"the answer is of another policy: {reading.short(said.get('digest'))}")
    if said.get("step") != step:
        raise ServingError(f"the answer is to step {reading.short(said.get('step'))}, not to {step}")
    codes, signals = said.get("codes", ()), said.get("signals", {})
    try:
        if any(type(code) is not int for code in codes):
            raise TypeError("codes are whole numbers")
        timing = answer.get("server_timing", {}).get("infer_ms", 0.0)
        named = {str(name): float(value) for name, value in signals.items()}
        return Reply(chunk.copy(), tuple(codes), named, step, float(timing) / 1000)
    except (TypeError, ValueError, AttributeError) as error:
        raise ServingError(f"expected codes, signals and times in the answer: {error}") from error
