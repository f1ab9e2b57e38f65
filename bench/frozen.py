"""A policy server frozen, killed, cut off or silenced at random moments, while a robot is driven in real time.

    OMP_NUM_THREADS=1 python -m bench.frozen 200

Each trial drives one episode at 50 Hz through a relay, strikes at a random moment, and checks: every action that the
guard passes is of this episode, aligned, and of a plan no older than a chunk; after the last of them come a hold, a
hold and the stop; and once the server is back, the next episode runs. Prints, by kind of fault and rule, how many
control periods passed from the fault to the first hold and to the stop, and the longest call of `step`.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.contract import Channel, ServingError, Spec
from vqbet.policies.actor import Actor, Planned
from vqbet.serving.client import RemotePolicy, connect
from vqbet.serving.player import RULES, ChunkPlayer

KINDS = ("frozen", "killed", "cut", "silent")
HZ, H = 50.0, 6
PERIOD_S = 1 / HZ
LONGEST_S = 20.0  # of an episode with its fault
BACK_S = 60.0  # for the server to be back
SCALE = 1e5  # milliseconds, and numbers of episodes, as numbers that a channel holds
SPEC = Spec(
    task="told",
    observation=(Channel("episode", "", 0.0, SCALE), Channel("now", "ms", 0.0, SCALE)),
    action=tuple(Channel(name, "", 0.0, 10 * SCALE) for name in ("episode", "meant_for", "planned")),
    control_hz=HZ,
    action_kind="absolute",
    frame="table",
)


class Telling:
    """A planner whose actions repeat what they were planned from: the episode, and the time in milliseconds."""

    window, chunk, channels, goal_steps, draws, tags = 1, H, (2, 3, 0), 0, 1, 1

    def plan(self, observation: np.ndarray, goal: Any, uniform: np.ndarray) -> Planned:
        episode, now = observation[:, -1, :1], observation[:, -1, 1:]
        later = now + 1000 * PERIOD_S * np.arange(H, dtype=np.float32)
        chunk = np.stack([np.repeat(episode, H, 1), later, np.repeat(now, H, 1)], axis=2)
        return Planned(chunk.astype(np.float32), np.zeros((len(now), 1), np.int64), np.zeros((len(now), 0)))

    def arguments(self) -> dict[str, Any]:
        return {}

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        return {}


def serve(port: int) -> None:
    """Serve until killed."""
    from vqbet.serving.seats import Served
    from vqbet.serving.server import Server, ServerOptions

    served = Served.of(Actor(SPEC, Telling(), execute="first"), "a" * 64, "told@champion")

    async def run() -> None:
        await Server(served, ServerOptions(port=port, alive_s=1.0)).run(lambda port: print("ready", flush=True))

    asyncio.run(run())


class Process:
    """The server in a process of its own, which can be frozen and killed."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "bench.frozen", "--serve", str(self.port)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parent.parent
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise ServingError("the server did not start")

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)
        if number == signal.SIGKILL:
            self.end()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class Relay:
    """A network between robot and server that can be cut, with both ends told, and silenced, with neither told."""

    def __init__(self, port: int) -> None:
        self._port, self._silent = port, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def cut(self) -> None:
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def silence(self) -> None:
        self._silent = True

    def restore(self) -> None:
        """Pass on what comes from now on; connections of before are gone."""
        if self._silent:
            self._silent = False
            self.cut()

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                threading.Thread(target=self._pass, args=(here,), daemon=True).start()

    def _pass(self, here: socket.socket) -> None:
        with here, suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as there:
            for end in (here, there):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            self._pairs.append((here, there))
            while True:
                for end in select.select([here, there], [], [])[0]:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    if not self._silent:
                        (there if end is here else here).sendall(data)


@dataclass
class Trial:
    """What was seen in one trial. wrong: sentences; none is expected. Times in control periods after the fault.
    early: how often the trial was repeated, because the robot had stopped before the fault."""

    kind: str
    rule: str
    wrong: list[str] = field(default_factory=list)
    held: float = float("nan")
    stopped: float = float("nan")
    step_ms: float = 0.0
    early: int = 0


class Clock:
    """The monotonic clock; keeps the time that it said last."""

    def __init__(self) -> None:
        self.said_s = 0.0

    def __call__(self) -> float:
        self.said_s = time.monotonic()
        return self.said_s


@contextmanager
def course() -> Iterator[tuple[Process, Relay, RemotePolicy]]:
    """A server, a network and a connected robot."""
    process = Process()
    relay = Relay(process.port)
    try:
        with connect(relay.url, spec=SPEC, robot="arm-1", timeout_s=1.0) as policy:
            yield process, relay, policy
    finally:
        relay.close()
        process.signal(signal.SIGCONT)
        process.end()


def campaign(times: int, seed: int = 0) -> list[Trial]:
    """Return that many trials; kinds, rules and moments depend on the seed."""
    random, trials = np.random.default_rng(seed), []
    with course() as (process, relay, policy):
        for number in range(times):
            kind, rule = KINDS[number % len(KINDS)], RULES[number // len(KINDS) % len(RULES)]
            trials.append(_trial(process, relay, policy, kind, rule, 2 * number + 1, float(random.uniform(0.1, 0.8))))
            while (
                trials[-1].stopped < 0
            ):  # other work on this machine was in the way for three periods: safe, but early
                early = trials.pop()
                again = _trial(process, relay, policy, kind, rule, 2 * number + 1, float(random.uniform(0.1, 0.8)))
                trials.append(replace(again, early=early.early + 1, wrong=early.wrong + again.wrong))
    return trials


def _trial(
    process: Process, relay: Relay, policy: RemotePolicy, kind: str, rule: str, episode: int, after_s: float
) -> Trial:
    trial, clock, struck = Trial(kind, rule), Clock(), [float("inf")]
    player = ChunkPlayer(policy, execute=rule, clock=clock)
    began_s = _start(player, episode)

    def strike() -> None:
        struck[0] = time.monotonic()
        _strike(process, relay, kind)

    timer = threading.Timer(after_s, strike)
    timer.start()
    _drive(player, clock, trial, episode, began_s, struck, LONGEST_S)
    timer.join()
    if np.isnan(trial.stopped):
        trial.wrong.append("the robot did not stop")
    _mend(process, relay, kind)
    player.finish()
    after = Trial(kind, rule)
    began_s = _start(player, episode + 1)
    passed = _drive(player, clock, after, episode + 1, began_s, [float("inf")], 10 * PERIOD_S)
    player.finish()
    trial.wrong += after.wrong if passed else ["the next episode did not run", *after.wrong]
    return trial


def _start(player: ChunkPlayer, episode: int) -> float:
    """Start an episode, trying again while the server is not back; return the time that its clock counts from."""
    deadline = time.monotonic() + BACK_S
    while True:
        try:
            player.start(np.array([episode, 0.0]), seed=episode)
            return time.monotonic()
        except ServingError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _drive(
    player: ChunkPlayer,
    clock: Clock,
    trial: Trial,
    episode: int,
    began_s: float,
    struck: list[float],
    most_s: float,
) -> int:
    """Drive at the control rate until the stop; return the number of actions that passed."""
    passed, verdicts, due_s = 0, [], time.monotonic()
    for _ in range(round(most_s * HZ)):
        time.sleep(max(0.0, due_s - time.monotonic()))
        due_s = max(due_s + PERIOD_S, time.monotonic())
        seen_s, cpu_s = time.monotonic(), time.thread_time()
        decision = player.step(np.array([episode, 1000 * (seen_s - began_s)]), observed_s=seen_s)
        trial.step_ms = max(trial.step_ms, 1000 * (time.thread_time() - cpu_s))
        verdicts.append(decision.verdict)
        late = (seen_s - struck[0]) / PERIOD_S
        if decision.verdict == "pass":
            passed += 1
            assert decision.action is not None
            trial.wrong += _stale(decision.action, episode, 1000 * (clock.said_s - began_s))
        elif late >= 0 and np.isnan(trial.held):
            trial.held = late
        if decision.verdict == "stop":
            trial.stopped = late
            if verdicts[-3:] != ["hold", "hold", "stop"]:
                trial.wrong.append(f"expected hold, hold, stop in the end, got {verdicts[-4:]}")
            break
    return passed


def _stale(action: np.ndarray, episode: int, now_ms: float) -> list[str]:
    """Return what is wrong with an action that passed at `now_ms`: another episode, age, or another step's row."""
    of, meant_ms, planned_ms = (float(number) for number in action)
    period_ms, found = 1000 * PERIOD_S, []
    if of != episode:
        found.append(f"an action of episode {of:g} in episode {episode}")
    if now_ms - planned_ms > (H + 0.6) * period_ms:
        found.append(f"an action planned {now_ms - planned_ms:.0f} ms ago, a chunk lasts {H * period_ms:.0f} ms")
    if abs(now_ms - meant_ms) > 2 * period_ms:
        found.append(f"an action that was meant for {meant_ms - now_ms:+.0f} ms from now")
    return found


def _strike(process: Process, relay: Relay, kind: str) -> None:
    if kind == "frozen":
        process.signal(signal.SIGSTOP)
    elif kind == "killed":
        process.signal(signal.SIGKILL)
    elif kind == "cut":
        relay.cut()
    else:
        relay.silence()


def _mend(process: Process, relay: Relay, kind: str) -> None:
    if kind == "frozen":
        process.signal(signal.SIGCONT)
    elif kind == "killed":
        process.start()
    else:
        relay.restore()


def main(argument: str = "200", port: str = "") -> None:
    if argument == "--serve":
        serve(int(port))
        return
    trials = campaign(int(argument))
    print(
        f"{'fault':8} {'rule':8} {'trials':>6} {'wrong':>6}   periods to hold (median, most)   to stop   step, CPU ms"
    )
    for kind in KINDS:
        for rule in RULES:
            some = [trial for trial in trials if (trial.kind, trial.rule) == (kind, rule)]
            if not some:
                continue
            held, stopped = np.array([trial.held for trial in some]), np.array([trial.stopped for trial in some])
            print(
                f"{kind:8} {rule:8} {len(some):6d} {sum(bool(trial.wrong) for trial in some):6d}   "
                f"{np.median(held):14.1f} {held.max():6.1f}   {np.median(stopped):14.1f} {stopped.max():6.1f}   "
                f"{max(trial.step_ms for trial in some):10.2f}"
            )
    print(f"stopped before the fault, and repeated: {sum(trial.early for trial in trials)}")
    for trial in trials:
        for sentence in trial.wrong:
            print(f"{trial.kind}, {trial.rule}: {sentence}")


if __name__ == "__main__":
    main(*sys.argv[1:])
