"""The policy server over loopback: what a served action costs, many robots, openpi's own server, and broken frames.

    python -m bench.serving [--policy FOLDER] [--actions 2000] [--robots 8] [--seconds 20] [--rate 30] [--openpi FOLDER]
    python -m bench.serving --fuzz 1000000 [--seed 0]
    python -m bench.serving --soak 600 [--robots 8] [--rate 60]

Without --policy, the policy has its paper's size and random weights. One thread. The server is a process of its own,
`vqbet serve`. Its own share of an answer is `server_timing.infer_ms`; all else is the way. Servers alternate in blocks,
so that other load on the machine affects all alike.

--openpi: a folder made by `pip install --no-deps --target FOLDER openpi-client==0.1.2 openpi-server==0.1.0`, whose
server then holds the same policy in the same interpreter. It has no history and no codes: one call of `Session.act`.

--fuzz: half of the frames go to a server through a socket, on a connection that stays open after an error and must
answer each frame; the other half are read as a robot reads a server's frames. Exits with 1 after a traceback, a missing
answer, or growth of memory.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from websockets.asyncio.client import connect as connect_later
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_now

from bench import frames
from bench.sizes import SIZES, VQBET
from vqbet import bundle
from vqbet.contract import Spec, VqbetError
from vqbet.policies.actor import Actor
from vqbet.serving import wire
from vqbet.serving.handshake import Handshake
from vqbet.serving.requests import VLLM_PATH
from vqbet.serving.session import Session

MOST = 1 << 22
BLOCK = 100  # actions of one server before the next one's turn
AHEAD = 64  # broken frames on their way at once
GROWTH_KB = 8192  # of the server's memory after the first tenth of the frames
WARM = 50
OPENPI = """
import sys, logging
from pathlib import Path
import torch
from openpi_server import WebsocketPolicyServer
from vqbet.serving.session import Session
torch.set_num_threads(1)
session = Session(Path(sys.argv[1]), None)
session.start(0)
class Policy:
    def infer(self, observation):
        return {"actions": session.act(observation["state"])[None]}
print("address ws://127.0.0.1:" + sys.argv[2], flush=True)
WebsocketPolicyServer(Policy(), "127.0.0.1", int(sys.argv[2])).serve_forever()
"""


@dataclass
class Process:
    """A server in a process of its own. log: what it wrote."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    @property
    def memory_kb(self) -> int:
        """Return the resident memory of the process, Linux only."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+([0-9]+)", status)[0])

    def count(self, name: str) -> int:
        with urllib.request.urlopen(self.url.replace("ws:", "http:") + "/metrics") as page:
            return int(re.findall(rf"^vqbet_{name}_total ([0-9]+)$", page.read().decode(), re.MULTILINE)[0])


@contextmanager
def started(command: list[str], log: Path, **variables: str) -> Iterator[Process]:
    """Run a server until the end of the block, after it has said its address."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | variables
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        while not (found := re.search(r"address\s+(ws://\S+:[0-9]+)", log.read_text())):
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.05)
        yield Process(process, found[1], log)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def served(folder: Path, scratch: Path, *options: str) -> Iterator[Process]:
    command = [sys.executable, "-m", "vqbet", "serve", str(folder), "--port", "0", "--grace", "0", *options]
    with started(command, scratch / "vqbet.log") as process:
        yield process


@contextmanager
def openpi(folder: Path, scratch: Path, packages: Path, port: int = 8931) -> Iterator[Process]:
    command = [sys.executable, "-c", OPENPI, str(folder), str(port)]
    path = os.pathsep.join([str(Path(__file__).resolve().parent.parent), str(packages)])
    with started(command, scratch / "openpi.log", PYTHONPATH=path) as process:
        yield process


def written(folder: Path, actor: Actor) -> None:
    parts = {"spec": actor.spec, "arguments": actor.arguments(), "components": actor.components()}
    bundle.write(folder, kind="vqbet", provenance={}, **parts)  # type: ignore[arg-type]


@contextmanager
def connected(url: str) -> Iterator[tuple[ClientConnection, bytes]]:
    """Connect to a server that listens or is about to, and yield the connection and the metadata frame."""
    for _ in range(200):
        try:
            socket: ClientConnection = connect_now(url, compression=None, max_size=None)
            break
        except OSError:
            time.sleep(0.05)
    else:
        raise SystemExit(f"{url}: nobody listens")
    with socket:
        metadata = socket.recv()
        assert isinstance(metadata, bytes)
        yield socket, metadata


# --- time ------------------------------------------------------------------------------------------------------------


@dataclass
class Times:
    """Milliseconds of each action: all of it, and the policy's share in the server."""

    whole: list[float] = field(default_factory=list)
    policy: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        whole, policy = np.array(self.whole), np.array(self.policy)
        half, most = np.percentile(whole, (50, 99))
        return (
            f"{name:24}{half:8.3f}{most:8.3f}{most / half:7.2f}{np.percentile(policy, 50):12.3f}"
            f"{np.percentile(policy, 99):8.3f}{np.percentile(whole - policy, 50):10.3f}"
        )


def acted(socket: ClientConnection, observations: np.ndarray, times: Times, step: int | None) -> None:
    for place, observation in enumerate(observations):
        asked = {"state": observation} | ({} if step is None else {"step": step + place})
        began = time.perf_counter()
        socket.send(wire.encode(asked))
        answer = wire.decode(socket.recv(), most=MOST)
        times.whole.append(1e3 * (time.perf_counter() - began))
        times.policy.append(answer["server_timing"]["infer_ms"])


def within(spec: Spec, count: int, seed: int = 0) -> np.ndarray:
    """Return observations (count, D) within the limits of the spec."""
    low, high = ([getattr(channel, end) for channel in spec.observation] for end in ("low", "high"))
    return np.random.default_rng(seed).uniform(low, high, (count, len(low))).astype(np.float32)


def alone(session: Session, observations: np.ndarray, times: Times) -> None:
    for observation in observations:
        began = time.perf_counter()
        session.act(observation)
        times.whole.append(1e3 * (time.perf_counter() - began))
        times.policy.append(times.whole[-1])


def latency(folder: Path, scratch: Path, actions: int, packages: Path | None) -> None:
    """Print the time of an action, in this process and served, block after block."""
    torch.set_num_threads(1)
    session = Session(folder, None)
    session.start(0)
    observations = within(session.spec, BLOCK)
    ours, theirs, here = Times(), Times(), Times()
    with ExitStack() as stack:
        process = stack.enter_context(served(folder, scratch))
        one, _ = stack.enter_context(connected(process.url))
        two = None
        if packages:
            other = stack.enter_context(openpi(folder, scratch, packages))
            two, _ = stack.enter_context(connected(other.url))
        for block in range(-1, actions // BLOCK):
            if block == 0:  # the block before was for warming up
                ours, theirs, here = Times(), Times(), Times()
            acted(one, observations, ours, (block + 1) * BLOCK)
            if two:
                acted(two, observations, theirs, None)
            alone(session, observations, here)
    print(f"{'ms':24}{'p50':>8}{'p99':>8}{'x':>7}{'policy p50':>12}{'p99':>8}{'way p50':>10}")
    print(here.line("Session.act, here"))
    print(ours.line("vqbet serve"))
    if packages:
        print(theirs.line("openpi-server 0.1.0"))


async def paced(url: str, number: int, robots: int, rate_hz: float, until: float, times: Times) -> None:
    """Ask for an action at every control step, the robots' steps spread over the period."""
    async with connect_later(url, compression=None) as socket:
        said = Handshake.of(wire.decode(await socket.recv(), most=MOST))
        observations = within(said.spec, 256, number)
        step, due = 0, time.perf_counter() + number / robots / rate_hz
        while due < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            await socket.send(wire.encode({"state": observations[step % 256], "step": step}))
            answer = wire.decode(await socket.recv(), most=MOST)
            if step >= WARM:
                times.whole.append(1e3 * (time.perf_counter() - began))
                times.policy.append(answer["server_timing"]["infer_ms"])
            step, due = step + 1, due + 1 / rate_hz


def many(folder: Path, scratch: Path, robots: int, rate_hz: float, seconds: float) -> None:
    """Print the time of an action of each of several robots at their control rate, and the server's memory."""
    times, memory = Times(), list[int]()

    async def all_of_them(process: Process) -> None:
        until = time.perf_counter() + seconds
        robots_ = [paced(process.url, each, robots, rate_hz, until, times) for each in range(robots)]
        watching = asyncio.create_task(watch(process))
        await asyncio.gather(*robots_)
        watching.cancel()

    async def watch(process: Process) -> None:
        while True:
            await asyncio.sleep(max(1.0, seconds / 10))
            memory.append(process.memory_kb)

    with served(folder, scratch, "--robots", str(robots)) as process:
        asyncio.run(all_of_them(process))
        failures, requests, calls = (process.count(name) for name in ("failures", "requests", "calls"))
    print(f"{robots} robots at {rate_hz:g} Hz for {seconds:g} s: half a period is {500 / rate_hz:.1f} ms")
    print(times.line("vqbet serve"))
    print(f"{requests} answers in {calls} calls, {failures} failures; memory in MB: {[kb // 1024 for kb in memory]}")


# --- broken frames ---------------------------------------------------------------------------------------------------


def fuzz(folder: Path, scratch: Path, count: int, seed: int) -> bool:
    """Send half of the frames to a server and read the other half as a robot does. Returns whether all went well."""
    began = time.perf_counter()
    with served(folder, scratch) as process:
        with connected(process.url + VLLM_PATH) as (socket, metadata):
            answers, grown_kb = _sent(process, socket, count - count // 2, seed)
        failures, refused = process.count("failures"), process.count("refused_requests")
        with connected(process.url) as (socket, said):
            seen = len(Handshake.of(wire.decode(said, most=MOST)).spec.observation)
            socket.send(wire.encode({"state": np.zeros(seen, np.float32)}))
            alive = "actions" in wire.decode(socket.recv(), most=MOST)
    read, kept = _read(metadata, count // 2, seed + 1)
    traceback = "Traceback" in process.log.read_text()
    print(f"{count} frames in {time.perf_counter() - began:.0f} s")
    print(f"  to the server: {answers} answered, of which {refused} refused, {failures} failures, grown {grown_kb} kB")
    print(f"  to the robot: {read} read, {kept} of them metadata of a policy")
    print(f"  traceback in the server's log: {traceback}; the server acts after it: {alive}")
    return alive and not traceback and not failures and grown_kb < GROWTH_KB


def _sent(process: Process, socket: ClientConnection, count: int, seed: int) -> tuple[int, int]:
    """Return the number of answers, and the growth of the server's memory since the first tenth."""
    seeds = [
        wire.encode({"state": np.zeros(20, np.float32), "session_id": "a", "endpoint": "infer", "prompt": "push"}),
        wire.encode({"endpoint": "reset", "session_id": "b", "seed": 3}),
        wire.encode({"observation.state": np.zeros((5, 20)), "execute": "robot", "step": 4}),
    ]
    answers, first = 0, 0
    waiting = 0
    for number, frame in enumerate(frames.mutants(seeds, count, seed)):
        socket.send(frame)
        waiting += 1
        if waiting == AHEAD or number == count - 1:
            for _ in range(waiting):
                answer = wire.decode(socket.recv(timeout=60), most=MOST)
                assert "Traceback" not in str(answer.get("message", ""))
                answers += 1
            waiting = 0
        if number == count // 10:
            first = process.memory_kb
    return answers, process.memory_kb - first


def _read(metadata: bytes, count: int, seed: int) -> tuple[int, int]:
    """Return how many frames are maps, and how many of these are metadata. Anything but VqbetError is raised."""
    answer: dict[str, Any] = {"actions": np.zeros((5, 2), np.float32), "server_timing": {"infer_ms": 1.0}, "vqbet": {}}
    read = kept = 0
    for frame in frames.mutants([metadata, wire.encode(answer)], count, seed):
        try:
            message = wire.decode(frame, most=MOST)
            read += 1
            Handshake.of(message)
            kept += 1
        except VqbetError:
            pass
    return read, kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actions", type=int, default=2000)
    parser.add_argument("--robots", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--openpi", type=Path)
    parser.add_argument("--policy", type=Path, help="folder of a bundle or an export, in place of random weights")
    parser.add_argument("--fuzz", type=int, default=0)
    parser.add_argument("--soak", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = options.policy or scratch / "policy"
        if not options.policy:
            written(folder, SIZES[VQBET].actor())
        if options.fuzz:
            sys.exit(not fuzz(folder, scratch, options.fuzz, options.seed))
        if options.soak:
            many(folder, scratch, options.robots, options.rate, options.soak)
            return
        latency(folder, scratch, options.actions, options.openpi)
        many(folder, scratch, options.robots, options.rate, options.seconds)


if __name__ == "__main__":
    main()
