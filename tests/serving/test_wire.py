"""Frames: what was written is read, and nothing else is."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vqbet.contract import ServingError
from vqbet.serving import wire

MOST = 1 << 20
KINDS = [f"<{kind}{size}" for kind in "iuf" for size in (2, 4, 8)] + ["|b1", "|i1", "|u1"]
ARRAYS = st.sampled_from(KINDS).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20)
VALUES = st.recursive(
    PLAIN | ARRAYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3),
    max_leaves=8,
)


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


def array(**fields: Any) -> dict[Any, Any]:
    """Return an array of three float32 zeros as openpi writes it, with some fields replaced."""
    whole = {"__ndarray__": True, "data": bytes(12), "dtype": "<f4", "shape": [3]} | fields
    return {key.encode(): value for key, value in whole.items()}


def frame(**message: Any) -> bytes:
    return msgpack.packb(message)


@given(st.dictionaries(st.text(max_size=8).filter(lambda key: key not in ("nd", "__ndarray__")), VALUES, max_size=4))
def test_what_was_written_is_read(message: dict[str, Any]) -> None:
    assert alike(message, wire.decode(wire.encode(message), most=MOST))


@given(st.binary(max_size=200))
def test_bytes_are_a_map_or_refused(content: bytes) -> None:
    said: object = ""
    try:
        assert type(wire.decode(content, most=MOST)) is dict
    except ServingError as error:
        said = error
    assert "\n" not in str(said)


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint8, np.bool_, np.float16])
def test_a_scalar_keeps_its_type(kind: type) -> None:
    found = wire.decode(wire.encode({"x": kind(1)}), most=MOST)["x"]
    assert type(found) is kind
    assert found == kind(1)


@pytest.mark.parametrize("keys", [bytes, str])
def test_both_spellings_of_markers_are_read(keys: type) -> None:
    spelt = {key if keys is bytes else key.decode(): value for key, value in array().items()}
    other = {"nd": True, "type": "<f4", "kind": b"", "shape": [3], "data": bytes(12)}
    other = {key.encode() if keys is bytes else key: value for key, value in other.items()}
    for form in (spelt, other):
        found = wire.decode(frame(x=form), most=MOST)["x"]
        assert found.dtype == np.float32
        assert found.shape == (3,)


def test_an_array_cannot_be_written_to() -> None:
    found = wire.decode(frame(x=array()), most=MOST)["x"]
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def nested(depth: int) -> bytes:
    return b"\x81\xa1x" + b"\x91" * depth + b"\xc0"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (frame(x=array(dtype="|O")), "dtype '.O': expected"),
        (frame(x=array(dtype="|V0", shape=[1 << 40], data=b"")), "dtype '.V0': expected"),
        (frame(x=array(dtype="<c16")), "dtype '<c16': expected"),
        (frame(x=array(dtype=">f4")), "dtype '>f4': expected"),
        (frame(x=array(dtype="<M8[s]")), "expected booleans, integers or floats"),
        (frame(x=array(dtype="f4,f4")), "dtype 'f4,f4': expected"),
        (frame(x=array(dtype=[["a", "<f4"]])), "expected booleans, integers or floats"),
        (frame(x=array(dtype=None)), "dtype None: expected"),
        (frame(x=array(dtype="<f4\n")), "dtype"),
        (frame(x=array(shape=[-3])), "expected a shape"),
        (frame(x=array(shape=[1 << 62, 4])), "expected the bytes of"),
        (frame(x=array(shape=[0, 1 << 62], data=b"")), r"shape \[0, 4611686018427387904\]"),
        (frame(x=array(shape=[1.0])), "expected a shape"),
        (frame(x=array(shape=[True])), "expected a shape"),
        (frame(x=array(shape=[1] * 9)), "expected a shape of at most 8 axes"),
        (frame(x=array(shape=3)), "expected a shape"),
        (frame(x=array(data=bytes(11))), "got 11 bytes"),
        (frame(x=array(data=bytes(13))), "got 13 bytes"),
        (frame(x=array(data="abc")), "got str"),
        (frame(x={"nd": True, "type": "|O", "kind": b"O", "shape": [1], "data": b"cos\nsystem\n"}), "dtype"),
        (frame(x={b"__npgeneric__": True, b"data": "1", b"dtype": "<f4"}), "scalar: expected a number, got str"),
        (frame(x={b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}), "scalar: "),
        (frame(x={b"__npgeneric__": True, b"data": 1, b"dtype": "|O"}), "dtype"),
        (nested(1100), "is not msgpack"),
        (nested(100_000), "is not msgpack"),
        (msgpack.packb([1]), "expected a map, got list"),
        (msgpack.packb(3), "expected a map, got int"),
        (msgpack.packb(array()), "expected a map, got ndarray"),
        (msgpack.packb({1: 2}), "expected keys of text, got 1"),
        (msgpack.packb({b"x": 2}), "expected keys of text, got b'x'"),
        (msgpack.packb({"x": msgpack.ExtType(5, b"a")}), "extension type 5"),
        (b"", "is not msgpack"),
        (b"\xc1", "is not msgpack"),
        (b"\xdf\xff\xff\xff\xff", "is not msgpack"),
        (b"\x81\xa1x\xdd\xff\xff\xff\xff", "is not msgpack"),
        (b"\x81\xa1x\xc6\xff\xff\xff\xff", "is not msgpack"),
        (b"\x81\xa1\xff\x01", "is not msgpack"),
        (frame(x=1) + b"\x00", "is not msgpack"),
        ("text", "expected a binary frame, got text: 'text'"),
        (bytes(MOST + 1), "1048577 bytes, at most 1048576 are read"),
    ],
)
def test_what_is_no_frame_is_refused_in_a_sentence(content: bytes | str, sentence: str) -> None:
    with pytest.raises(ServingError, match=sentence) as caught:
        wire.decode(content, most=MOST)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [object(), {1j}, np.zeros(2, complex), np.array(["a"]), np.array([None]), 2**70])
def test_what_no_frame_holds_is_not_written(value: Any) -> None:
    with pytest.raises(ServingError, match=r"frame: cannot be written|dtype"):
        wire.encode({"x": value})


def test_a_number_that_is_not_finite_travels() -> None:
    assert math.isnan(wire.decode(wire.encode({"x": np.float32("nan")}), most=MOST)["x"])
