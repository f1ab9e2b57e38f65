"""Time of a served action of several robots with cameras, at their control rate.

    python -m bench.seeing [--robots 4] [--rate 10] [--seconds 10] [--side 96] [--cameras 2]

Random weights, the encoder that `vqbet new` writes (conv), the rest of the paper's Push-T size. The server is a process
of its own, `vqbet serve`; the robots are in this one. Each asks for a new plan from T steps at every control step and
sends one new picture of each camera.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from websockets.asyncio.client import connect

from bench.serving import MOST, WARM, Times, served, within, written
from bench.sizes import SIZES, VQBET
from vqbet.contract import Camera
from vqbet.models.encoders import Encoder, EncoderShape
from vqbet.models.prior import Prior
from vqbet.policies.actor import Actor
from vqbet.policies.vqbet import VQBeT
from vqbet.serving import wire
from vqbet.serving.handshake import Handshake


def seeing(side: int, count: int) -> Actor:
    """Return the policy of the paper's size with cameras."""
    torch.manual_seed(0)
    blind = SIZES[VQBET].actor()
    cameras = tuple(Camera(f"camera{number}", side, side) for number in range(count))
    assert isinstance(blind.planner, VQBeT)
    prior = blind.planner.prior
    encoder = Encoder(cameras, EncoderShape(crop=0.9))
    made = Prior(prior.tokenizer, prior.normalizer, prior.shape, prior.objective, encoder=encoder)
    return Actor(replace(blind.spec, cameras=cameras), VQBeT(made), execute=blind.execute)


async def paced(url: str, number: int, robots: int, rate_hz: float, until: float, times: Times) -> None:
    async with connect(url, compression=None, max_size=None) as socket:
        said = Handshake.of(wire.decode(await socket.recv(), most=MOST))
        states, rng = within(said.spec, 64, number), np.random.default_rng(number)
        shown = [{f"camera/{camera.name}": rng.integers(0, 256, (said.window, *camera.shape), np.uint8)
                  for camera in said.spec.cameras} for _ in range(8)]  # fmt: skip
        step, due = 0, time.perf_counter() + number / robots / rate_hz
        while due < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asked = {"state": np.repeat(states[step % 64][None], said.window, 0), "step": step, "execute": "robot"}
            if step:
                asked |= {name: each[:1] for name, each in shown[step % 8].items()}
                asked["pictures"] = [*range(1 - said.window, 0), 0]
            else:
                asked |= shown[0]
            began = time.perf_counter()
            await socket.send(wire.encode(asked))
            answer = wire.decode(await socket.recv(), most=MOST)
            if step >= min(WARM, 10):
                times.whole.append(1e3 * (time.perf_counter() - began))
                times.policy.append(answer["server_timing"]["infer_ms"])
            step, due = step + 1, due + 1 / rate_hz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robots", type=int, default=4)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--cameras", type=int, default=2)
    asked = parser.parse_args()
    times = Times()

    async def all_of_them(url: str) -> None:
        until = time.perf_counter() + asked.seconds
        each = (paced(url, number, asked.robots, asked.rate, until, times) for number in range(asked.robots))
        await asyncio.gather(*each)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "policy"
        written(folder, seeing(asked.side, asked.cameras))
        with served(folder, Path(name), "--robots", str(asked.robots)) as process:
            asyncio.run(all_of_them(process.url))
            failures = process.count("failures")
    what = f"{asked.robots} robots, {asked.cameras} cameras of {asked.side} px, {asked.rate:g} Hz"
    print(f"{what}: {len(times.whole)} answers")
    print(f"{'ms':24}{'p50':>8}{'p99':>8}{'x':>7}{'policy p50':>12}{'p99':>8}{'way p50':>10}")
    print(times.line("vqbet serve"))
    print(f"a period is {1000 / asked.rate:g} ms; {failures} failures")


if __name__ == "__main__":
    main()
