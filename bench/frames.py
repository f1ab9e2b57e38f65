"""Broken frames for the fuzzer of the policy server: mutants of real ones, and maps with wrong values."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgpack
import numpy as np

KEYS = (
    *("state", "observation/state", "observation.state", "observation/joint_position", "observation/gripper_position"),
    *("endpoint", "session_id", "goal", "seed", "step", "execute", "prompt", "digest", "camera/wrist", "type", ""),
    *("actions", "vqbet", "server_timing", "status"),
)
DTYPES = ("|O", "V0", "|V0", "<c16", ">f8", "<f8", "<f4", "|u1", "|b1", "<i8", "<f2", "<M8[s]", "f4,f4", "", "<f16")
EDGES = (0, 1, -1, 2**31, 2**62, 2**63, 2**64 - 1, -(2**63), 1 << 40, 8, 9)
TEXTS = ("infer", "reset", "robot", "server", "a", "\x00", "x" * 300, "\U0001f916", "__ndarray__", "nd")


def mutants(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` frames: a third edited bytes of `seeds`, a third maps of wrong values, the rest a mixture."""
    chance = random.Random(seed)
    for number in range(count):
        kind = number % 3
        frame = chance.choice(seeds) if kind == 0 else _made(chance)
        yield _edited(chance, frame) if kind != 1 else frame


def _edited(chance: random.Random, frame: bytes) -> bytes:
    """Return the frame with a few bytes flipped, cut, repeated or inserted."""
    content = bytearray(frame)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        place, act = chance.randrange(len(content) + 1), chance.randrange(5)
        if act == 0:
            del content[place:]
        elif act == 1:
            content[place:place] = chance.randbytes(chance.choice((1, 1, 4, 9)))
        elif act == 2:
            del content[place : place + chance.choice((1, 1, 2, 8))]
        elif act == 3 and place < len(content):
            content[place] = chance.choice(
                (0x00, 0x7F, 0x80, 0xC0, 0xC1, 0xC7, 0xDD, 0xDF, 0xFF, chance.randrange(256))
            )
        elif place < len(content):
            content[place] ^= 1 << chance.randrange(8)
    return bytes(content)


def _made(chance: random.Random) -> bytes:
    message = {chance.choice(KEYS): _value(chance, 0) for _ in range(chance.randrange(6))}
    if chance.random() < 0.3:
        message["state"] = _array(chance)
    try:
        return bytes(msgpack.packb(message))
    except (ValueError, OverflowError):
        return b"\x80"


def _value(chance: random.Random, depth: int) -> Any:
    pick = chance.randrange(9 if depth < 3 else 6)
    if pick == 0:
        return chance.choice(EDGES)
    if pick == 1:
        return chance.choice((float("nan"), float("inf"), 1e308, -0.0, 0.5))
    if pick == 2:
        return chance.choice(TEXTS)
    if pick == 3:
        return chance.choice((None, True, False, b"", b"\x00" * 20))
    if pick in (4, 5):
        return _array(chance)
    if pick == 6:
        return [_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if pick == 7:
        return {chance.choice(KEYS): _value(chance, depth + 1) for _ in range(chance.randrange(3))}
    return {b"__npgeneric__": True, b"data": _value(chance, 3), b"dtype": chance.choice(DTYPES)}


def _array(chance: random.Random) -> dict[Any, Any]:
    """Return an array as msgpack holds it, whose parts need not fit together."""
    shape = [chance.choice((0, 1, 2, 3, 5, 8, 20, *EDGES)) for _ in range(chance.choice((0, 1, 1, 2, 3, 9)))]
    dtype = chance.choice(DTYPES)
    data: Any = chance.randbytes(chance.choice((0, 1, 4, 8, 20, 40, 160)))
    if chance.random() < 0.4:  # one that fits
        data = np.array([chance.uniform(-2, 2) for _ in range(chance.choice((5, 8, 20)))], "<f4").tobytes()
        shape, dtype = [len(data) // 4], "<f4"
    if chance.random() < 0.05:
        data = chance.choice((None, "text", [1, 2], 7))
    if chance.random() < 0.2:
        whole = {"nd": chance.choice((True, False)), "type": dtype, "kind": b"", "shape": shape, "data": data}
    else:
        whole = {"__ndarray__": True, "data": data, "dtype": dtype, "shape": shape}
    if chance.random() < 0.1:
        del whole[chance.choice(list(whole))]
    keys = chance.choice((str.encode, str))
    return {keys(name): value for name, value in whole.items()}
