"""HDF5 files of robomimic and Isaac Lab are read as h5py reads them; nothing outside of them is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.support import foreign_sets
from tests.support.foreign_sets import LENGTHS, SIZE, made
from vqbet.contract import StoreError
from vqbet.demos.sources import opened

Fault = Callable[[Any], object]
STEPS = (*LENGTHS, *[5] * 8)


def test_a_good_file_of_robomimic_is_read(tmp_path: Path) -> None:
    source = opened(foreign_sets.robomimic(tmp_path / "set.hdf5"))
    assert (source.format, source.rate_hz) == ("hdf5", 20.0)
    assert [one.name for one in source.episodes] == [f"demo_{number}" for number in range(11)]
    assert [one.steps for one in source.episodes] == list(STEPS)
    assert source.episodes[10].labels["filters"] == ("valid",)
    assert source.notes == ("mask/train names 9 of 11 demonstrations", "mask/valid names 2 of 11 demonstrations")
    assert (source.fields["obs/top_image"].kind, source.fields["obs/top_image"].shape) == ("pictures", (*SIZE, 3))
    for episode, one in enumerate(made(STEPS)):
        assert source.time_s(episode) is None
        assert np.array_equal(source.numbers(episode, "obs/eef_pos"), one.state)
        assert np.array_equal(np.stack(list(source.frames(episode, "obs/top_image"))), one.pictures)
    assert next(iter(source.frames(0, "obs/top_image", (8, 16)))).shape == (8, 16, 3)


def test_a_good_file_of_isaac_lab_is_read(tmp_path: Path) -> None:
    foreign_sets.isaac(tmp_path / "dataset.hdf5")
    source = opened(tmp_path)  # a folder with one file
    assert source.rate_hz == pytest.approx(20.0)
    assert [one.labels["success"] for one in source.episodes] == [True, False, True]
    assert set(source.fields) == {"actions", "obs/joint_pos", "states/articulation/robot/joint_position"}
    for episode, one in enumerate(made()):
        assert np.array_equal(source.numbers(episode, "states/articulation/robot/joint_position"), one.state)


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = foreign_sets.robomimic(tmp_path / "set.hdf5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(StoreError, match=r"set.hdf5: .*install vqbet\[hdf5\]"):
        opened(path)


def _replaced(name: str, **how: Any) -> Fault:
    def fault(file: Any) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return fault


def _linked(name: str, link: object) -> Fault:
    def fault(file: Any) -> None:
        del file[name]
        file[name] = link

    return fault


def _attribute(name: str, key: str, value: object) -> Fault:
    return lambda file: file[name].attrs.__setitem__(key, value)


def _without(name: str) -> Fault:
    return lambda file: file.__delitem__(name)


def _itself(file: Any) -> None:
    file["data/demo_1/obs/again"] = file["data/demo_1/obs"]


def _outside(file: Any) -> None:
    path = Path(file.filename).parent / "raw.bin"
    path.write_bytes(bytes(7 * 2 * 4))
    del file["data/demo_1/actions"]
    file.create_dataset("data/demo_1/actions", (7, 2), "f4", external=[(str(path), 0, 56)])


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout(shape=(7, 2), dtype="f4")
    layout[:] = h5py.VirtualSource("other.hdf5", "x", shape=(7, 2))
    del file["data/demo_1/actions"]
    file.create_virtual_dataset("data/demo_1/actions", layout)


def _a_chunk_short(file: Any) -> None:
    _replaced("data/demo_1/actions", shape=(7, 2), dtype="f4", chunks=(2, 2))(file)
    file["data/demo_1/actions"][:4] = 1.0


def _fractions(file: Any) -> None:
    for name in file["data"]:
        pictures = file[f"data/{name}/obs/top_image"][...].astype(np.float32)
        _replaced(f"data/{name}/obs/top_image", data=pictures / 255)(file)


TWO = np.zeros((7, 2), np.float32)
ACTIONS = "data/demo_1/actions"
MUTANTS: dict[str, tuple[Fault, str]] = {
    "no data": (_without("data"), r"set.hdf5: expected 'data', found mask"),
    "empty data": (
        lambda file: [file.__delitem__(f"data/demo_{n}") for n in range(11)],
        r"data: expected demonstrations",
    ),
    "an empty demonstration": (lambda file: file.create_group("data/demo_11"), r"demo_11: expected datasets"),
    "data is a dataset": (_replaced("data", data=TWO), r"set.hdf5: data: expected a group, got a dataset"),
    "field missing": (
        _without("data/demo_1/obs/eef_pos"),
        r"demo_1: expected the fields of demo_0 .*lacks obs/eef_pos",
    ),
    "field too many": (lambda file: file.create_dataset("data/demo_1/more", data=TWO), r"demo_1: .* has more too"),
    "wider actions": (
        _replaced(ACTIONS, data=np.zeros((7, 3), "f4")),
        r"demo_1: actions: .*\(2,\) as in demo_0.*\(3,\)",
    ),
    "another dtype": (_replaced(ACTIONS, data=TWO.astype(int)), r"demo_1: actions: expected float32 .*got int64"),
    "a row short": (_replaced(ACTIONS, data=TWO[:6]), r"demo_1: actions: expected 7 rows, .*\(6, 2\)"),
    "num_samples": (_attribute("data/demo_1", "num_samples", 8), r"demo_1: .*: expected 8 rows"),
    "num_samples of text": (_attribute("data/demo_1", "num_samples", "many"), r"demo_1: num_samples: .*'many'"),
    "total": (_attribute("data", "total", 7), r"data: total: says 7, but the demonstrations have 74 steps"),
    "no rate": (
        _attribute("data", "env_args", '{"env_kwargs": {"control_freq": 0}}'),
        r"data: env_args: control_freq: .*got 0",
    ),
    "arguments are no JSON": (_attribute("data", "env_args", "{"), r"data: env_args: is not readable JSON"),
    "objects": (
        _replaced(ACTIONS, data=np.array(["a"] * 7, object)),
        r"demo_1: actions: .*dtype object.*never decoded",
    ),
    "records": (_replaced(ACTIONS, data=np.zeros(7, [("x", "f4")])), r"demo_1: actions: expected numbers"),
    "texts": (_replaced(ACTIONS, data=np.array([b"a"] * 7)), r"demo_1: actions: expected numbers, got dtype \|S1"),
    "soft link": (
        _linked(ACTIONS, h5py.SoftLink("/data/demo_0/actions")),
        r"demo_1: actions: is a link to /data/demo_0",
    ),
    "external link": (
        _linked(ACTIONS, h5py.ExternalLink("/etc/x.hdf5", "/a")),
        r"demo_1: actions: is a link to /etc/x",
    ),
    "linked demonstration": (_linked("data/demo_1", h5py.SoftLink("/data/demo_0")), r"data: demo_1: is a link to"),
    "linked data": (
        _linked("data", h5py.ExternalLink("o.hdf5", "/data")),
        r"set.hdf5: data: is a link to o.hdf5:/data",
    ),
    "a group that holds itself": (_itself, r"demo_1: obs/again/again/.*deep in one another"),
    "external storage": (_outside, r"demo_1: actions: is stored in other files"),
    "virtual dataset": (_virtual, r"demo_1: actions: is stored in other files"),
    "a bomb of nothing": (
        _replaced(ACTIONS, shape=(7, 2**26), dtype="f8", chunks=(1, 1024)),
        r"demo_1: actions: claims .* none is stored",
    ),
    "a row of gigabytes": (
        _replaced(ACTIONS, shape=(7, 2**31), dtype="f8", chunks=(1, 8)),
        r"demo_1: actions: claims .*more",
    ),
    "chunks missing": (_a_chunk_short, r"demo_1: actions: expected 4 chunks.*got 2"),
    "mask of nobody": (_replaced("mask/train", data=np.array([b"demo_99"])), r"mask: train: names 'demo_99'"),
    "mask of numbers": (_replaced("mask/train", data=np.arange(3)), r"mask: train: expected the names"),
    "pictures from 0 to 1": (_fractions, r"demo_0: obs/top_image: step 0: expected whole numbers"),
}


@pytest.mark.parametrize("kind", MUTANTS)
def test_a_broken_file_ends_in_a_sentence(tmp_path: Path, kind: str) -> None:
    fault, sentence = MUTANTS[kind]
    path = foreign_sets.robomimic(tmp_path / "set.hdf5")
    with h5py.File(path, "r+") as file:
        fault(file)
    with pytest.raises(StoreError, match=sentence) as caught:
        foreign_sets.read_all(opened(path))
    assert "set.hdf5" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900


def _zeroed(path: Path) -> None:
    """Overwrite the packed pictures."""
    with h5py.File(path, "r") as file:
        info = file["data/demo_1/obs/top_image"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[info.byte_offset : info.byte_offset + info.size] = bytes(info.size)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda path: os.truncate(path, 5000), r"set.hdf5: cannot be opened as HDF5: .*trunc"),
        (lambda path: path.write_bytes(b"hello"), r"set.hdf5: holds no demonstrations"),
        (_zeroed, r"demo_1: obs/top_image: cannot be decoded"),
    ],
)
def test_damaged_bytes_end_in_a_sentence(tmp_path: Path, fault: Fault, sentence: str) -> None:
    path = foreign_sets.robomimic(tmp_path / "set.hdf5")
    fault(path)
    with pytest.raises(StoreError, match=sentence):
        foreign_sets.read_all(opened(path))
