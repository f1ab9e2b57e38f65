"""A folder of .npz episodes is read as numpy reads it, and never unpickled; broken ones end in a sentence."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import foreign_sets
from tests.support.foreign_sets import FPS, LENGTHS, made
from vqbet.contract import StoreError
from vqbet.demos.sources import opened

Fault = Callable[[Path], object]
STEPS = (*LENGTHS, *[5] * 8)


def test_a_good_folder_is_read(tmp_path: Path) -> None:
    root = foreign_sets.npz(tmp_path / "set")
    (root / "readme.md").write_text("hello")
    source = opened(root)
    assert (source.format, source.rate_hz, source.notes) == ("npz", None, ("other files are not read: readme.md",))
    assert [one.name for one in source.episodes] == [f"episode_{number}" for number in range(11)]
    assert [one.steps for one in source.episodes] == list(STEPS)
    assert source.episodes[1].labels == {"success": False, "task": "lift the block"}
    for episode, one in enumerate(made(STEPS)):
        assert np.array_equal(source.numbers(episode, "state"), one.state)
        assert np.allclose(source.time_s(episode), np.arange(one.steps) / FPS)
        assert np.array_equal(np.stack(list(source.frames(episode, "image"))), one.pictures)


def test_a_rate_in_the_files_is_the_rate(tmp_path: Path) -> None:
    for number in range(2):
        np.savez(tmp_path / f"{number}.npz", action=np.zeros((4, 2)), fps=30)
    assert opened(tmp_path).rate_hz == 30.0
    np.savez(tmp_path / "2.npz", action=np.zeros((4, 2)), fps=20)
    with pytest.raises(StoreError, match="expected one rate, got 20, 30 Hz"):
        opened(tmp_path)


def _changed(change: Callable[[dict[str, Any]], object], name: str = "episode_1.npz") -> Fault:
    def fault(root: Path) -> None:
        with np.load(root / name) as file:
            arrays = dict(file)
        change(arrays)
        np.savez(root / name, **arrays)

    return fault


def _put(key: str, value: Any) -> Fault:
    return _changed(lambda arrays: arrays.__setitem__(key, value))


def _member(content: bytes, key: str = "state") -> Fault:
    """Replace the bytes of an array."""

    def fault(root: Path) -> None:
        path = root / "episode_1.npz"
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, old in members.items():
                archive.writestr(name, content if name == f"{key}.npy" else old)

    return fault


def _npy(shape: str, content: bytes, dtype: str = "'<f8'") -> bytes:
    sink = io.BytesIO()
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    sink.write(np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header + content)
    return sink.getvalue()


def _linked(root: Path) -> None:
    shutil.move(root / "episode_1.npz", root.parent / "elsewhere")
    (root / "episode_1.npz").symlink_to(root.parent / "elsewhere")


def _flipped(root: Path) -> None:
    path = root / "episode_1.npz"
    content = bytearray(path.read_bytes())
    place = content.index(b"image.npy") + 200
    content[place : place + 20] = bytes(20)
    path.write_bytes(content)


ONE = r"episode_1.npz: episode episode_1"
MUTANTS: dict[str, tuple[Fault, str]] = {
    "objects": (_put("state", np.array([{}] * 7, object)), rf"{ONE}: state: .*dtype object.*never decoded"),
    "a single object": (_put("task", np.array({}, object)), rf"{ONE}: task: .*dtype object.*never decoded"),
    "texts": (_put("state", np.array(["a"] * 7)), rf"{ONE}: state: expected numbers"),
    "records": (_put("state", np.zeros(7, [("x", "f4")])), rf"{ONE}: state: expected numbers"),
    "key missing": (
        _changed(lambda arrays: arrays.pop("state")),
        rf"{ONE}: expected the fields of episode_0.npz.*lacks state",
    ),
    "key too many": (_put("more", np.zeros(7)), rf"{ONE}: expected the fields of episode_0.npz.*has more too"),
    "wider": (_put("state", np.zeros((7, 4), "f4")), rf"{ONE}: state: expected float32 of \(3,\).*\(4,\)"),
    "another dtype": (_put("state", np.zeros((7, 3))), rf"{ONE}: state: expected float32 .*got float64"),
    "a row short": (
        _put("state", np.zeros((6, 3), "f4")),
        rf"{ONE}: state: expected 7 rows .*got 6|{ONE}: action: expected 6",
    ),
    "no rows": (
        _changed(lambda arrays: [arrays.update({k: v[:0]}) for k, v in arrays.items() if v.ndim]),
        rf"{ONE}: .*got 0",
    ),
    "empty": (lambda root: np.savez(root / "episode_1.npz"), rf"{ONE}: expected arrays"),
    "no zip": (lambda root: (root / "episode_1.npz").write_bytes(b"x" * 99), rf"{ONE}: is not a whole .npz file"),
    "cut": (lambda root: os.truncate(root / "episode_1.npz", 300), rf"{ONE}: is not a whole .npz file"),
    "damaged": (_flipped, rf"{ONE}: image: cannot be decoded"),
    "linked": (_linked, rf"{ONE}: is a link to .* outside"),
    "bomb of zeros": (_member(_npy("(1000000, 3000)", b"")), rf"{ONE}: state: claims .* 24000000000 bytes"),
    "header that lies": (_member(_npy("(7, 3)", bytes(2**20))), rf"{ONE}: state: claims \d+ bytes, but unpacks to \d+"),
    "header that is code": (_member(_npy("__import__('os')", b"")), rf"{ONE}: state: cannot be decoded"),
    "objects of a header": (_member(_npy("(7, 3)", b"", "'|O'")), rf"{ONE}: state: .*object"),
    "no header": (_member(b"hello"), rf"{ONE}: state: cannot be decoded"),
    "version 9": (_member(b"\x93NUMPY\x09\x00" + bytes(100)), rf"{ONE}: state: .*version"),
    "times go back": (_put("timestamp", -np.arange(7.0)), rf"{ONE}: timestamp: expected times that grow"),
    "time not finite": (_put("timestamp", np.full(7, np.nan)), rf"{ONE}: timestamp: is not finite"),
    "rate 0": (_put("fps", np.float64(0)), rf"{ONE}: fps: expected a positive rate"),
    "no files": (
        lambda root: [one.unlink() for one in root.iterdir()],
        r"set: holds no demonstrations .*found: nothing",
    ),
}


@pytest.mark.parametrize("kind", MUTANTS)
def test_a_broken_folder_ends_in_a_sentence(tmp_path: Path, kind: str) -> None:
    fault, sentence = MUTANTS[kind]
    root = foreign_sets.npz(tmp_path / "set")
    fault(root)
    with pytest.raises(StoreError, match=sentence) as caught:
        foreign_sets.read_all(opened(root))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900
