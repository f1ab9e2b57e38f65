"""ROS 2 bags become episodes of one rate; none of their text becomes code, and a broken one ends in a sentence."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import foreign_sets
from vqbet.contract import StoreError
from vqbet.demos.sources import opened
from vqbet.demos.sources.bags import Resampling

Fault = Callable[[Path], object]


@pytest.mark.parametrize(("mcap", "packed"), [(True, False), (True, True), (False, False)])
def test_a_good_bag_is_read(tmp_path: Path, mcap: bool, packed: bool) -> None:
    source = opened(foreign_sets.bag(tmp_path / "bag_1", mcap=mcap, packed=packed))
    assert (source.format, source.rate_hz, len(source.episodes)) == ("bag", 10.0, 1)
    assert (source.episodes[0].name, source.episodes[0].steps) == ("bag_1", 19)
    assert source.fields["/joints"].names == ("position.elbow", "position.wrist", "velocity.elbow", "velocity.wrist")
    assert source.fields["/camera"].shape == (16, 24, 3)
    joints = source.numbers(0, "/joints")
    assert np.array_equal(joints[:, 0], 5 * np.arange(19))
    assert np.array_equal(joints[:, 2], -5 * np.arange(19))
    assert np.array_equal(source.numbers(0, "/command")[:5, 0], [0, 2, 5, 7, 10])
    assert np.allclose(source.time_s(0), np.arange(19) / 10)
    frames = list(source.frames(0, "/camera"))
    assert [frame[3, 3].tolist() for frame in frames] == [[200, 100, number] for number in range(19)]
    assert [int(frame[0, 0, 0]) for frame in source.frames(0, "/still", (4, 8))] == list(range(19))
    assert "/joints: 50 messages a second, largest gap 0.020 s, hold" in source.notes
    assert "/log: std_msgs/msg/String is not read" in source.notes
    assert all(path.is_file() for path in source.files())


def test_the_rate_is_a_choice_and_a_picture_holds(tmp_path: Path) -> None:
    source = opened(foreign_sets.bag(tmp_path / "bag"), "bag", Resampling(rate_hz=50))
    assert source.episodes[0].steps == 95
    assert np.array_equal(source.numbers(0, "/joints")[:, 0], np.arange(95))
    assert [int(frame[0, 0, 2]) for frame in source.frames(0, "/camera")] == [step // 5 for step in range(95)]


def test_the_nearest_message_may_lie_ahead(tmp_path: Path) -> None:
    """Steps are at 4 + 100 k ms; commands come at 1 + 40 n ms."""
    path = foreign_sets.bag(tmp_path / "bag")
    nearest = opened(path, "bag", Resampling(nearest=frozenset({"/command"})))
    assert np.array_equal(nearest.numbers(0, "/command")[:5, 0], [0, 3, 5, 8, 10])
    assert "/command: 25 messages a second, largest gap 0.040 s, nearest" in nearest.notes


def test_a_folder_of_bags_is_an_episode_each_and_a_file_is_one(tmp_path: Path) -> None:
    for number in (10, 9):
        foreign_sets.bag(tmp_path / f"run_{number}", seconds=number / 10)
    source = opened(tmp_path)
    assert [one.name for one in source.episodes] == ["run_9", "run_10"]
    assert opened(tmp_path / "run_9/run_9.mcap").episodes[0].steps == source.episodes[0].steps


def test_without_rosbags_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = foreign_sets.bag(tmp_path / "bag")
    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    with pytest.raises(StoreError, match=r"install vqbet\[bags\]"):
        opened(path)


def test_a_type_that_only_the_bag_defines_is_not_read(tmp_path: Path) -> None:
    """Its definition would have to become code."""

    def more(writer: Any, store: Any) -> None:
        from rosbags.typesys import get_types_from_msg

        store.register(get_types_from_msg("float64 x", "robot/msg/Own"))
        connection = writer.add_connection("/own", "robot/msg/Own", typestore=store)
        for number in range(100):
            content = store.serialize_cdr(store.types["robot/msg/Own"](1.0), "robot/msg/Own")
            writer.write(connection, 10**18 + number * 10**7, content)

    source = opened(foreign_sets.bag(tmp_path / "bag", more=more))
    assert "/own" not in source.fields
    assert "/own: robot/msg/Own is not read" in source.notes


def _made(**how: Any) -> Callable[[Path], Path]:
    return lambda root: foreign_sets.bag(root / "bag", **how)


def _then(fault: Fault, **how: Any) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        path = foreign_sets.bag(root / "bag", **how)
        fault(path)
        return path

    return build


def _joints(names: list[str], stamps: list[int]) -> Callable[[Any, Any], None]:
    """Write further messages of the joints at these milliseconds."""

    def more(writer: Any, store: Any) -> None:
        types, kind = store.types, "sensor_msgs/msg/JointState"
        header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), "base")
        connection = next(one for one in writer.connections if one.topic == "/joints")
        for stamp in stamps:
            numbers = np.zeros(len(names))
            message = types[kind](header, names, numbers, numbers, np.zeros(0))
            writer.write(connection, 10**18 + stamp * 10**6, store.serialize_cdr(message, kind))

    return more


def _image(encoding: str, height: int, size: int, stamp: int = 150) -> Callable[[Any, Any], None]:
    def more(writer: Any, store: Any) -> None:
        types, kind = store.types, "sensor_msgs/msg/Image"
        header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), "base")
        connection = next(one for one in writer.connections if one.topic == "/camera")
        message = types[kind](header, height, 24, encoding, 0, 72, np.zeros(size, np.uint8))
        writer.write(connection, 10**18 + stamp * 10**6, store.serialize_cdr(message, kind))

    return more


def _two_types(writer: Any, store: Any) -> None:
    connection = writer.add_connection("/joints", "std_msgs/msg/Float64", typestore=store)
    content = store.serialize_cdr(store.types["std_msgs/msg/Float64"](1.0), "std_msgs/msg/Float64")
    writer.write(connection, 10**18 + 5 * 10**6, content)


def _arm(writer: Any, store: Any) -> None:
    """A topic that is silent from 0.5 s to 1.5 s."""
    connection = writer.add_connection("/arm", "geometry_msgs/msg/Vector3", typestore=store)
    content = store.serialize_cdr(store.types["geometry_msgs/msg/Vector3"](1.0, 2.0, 3.0), "geometry_msgs/msg/Vector3")
    for stamp in (*range(0, 500, 20), *range(1500, 2000, 20)):
        writer.write(connection, 10**18 + stamp * 10**6, content)


def _garbage(writer: Any, store: Any) -> None:
    connection = next(one for one in writer.connections if one.topic == "/joints")
    writer.write(connection, 10**18 + 50 * 10**6, b"\0\1\0\0\xff\xff\xff\xff\xff")


def _mixed(root: Path) -> Path:
    foreign_sets.bag(root / "set/bag_1")
    foreign_sets.bag(root / "set/bag_2", more=_joints(["elbow"], [-2]))
    return root / "set"


def _linked(path: Path) -> None:
    shutil.move(path / "bag.mcap", path.parent / "elsewhere.mcap")
    (path / "bag.mcap").symlink_to(path.parent / "elsewhere.mcap")


def _empty(root: Path) -> Path:
    from rosbags.rosbag2 import Writer

    with Writer(root / "bag", version=9):
        pass
    return root / "bag"


def _bomb(path: Path) -> None:
    """A chunk that says it unpacks to 64 GB."""
    file = path / "bag.mcap"
    content = bytearray(file.read_bytes())
    place = content.index(b"zstd") - 32 + 16
    content[place : place + 8] = (2**36).to_bytes(8, "little")
    file.write_bytes(content)


def _flipped(path: Path) -> None:
    file = path / "bag.mcap"
    content = bytearray(file.read_bytes())
    place = content.index(b"zstd") + 60
    content[place : place + 30] = bytes(30)
    file.write_bytes(content)


BAG = r"bag: episode bag"
MUTANTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "cut": (_then(lambda path: os.truncate(path / "bag.mcap", 9000)), rf"{BAG}: is cut off at byte"),
    "no MCAP": (_then(lambda path: (path / "bag.mcap").write_bytes(b"x" * 99)), rf"{BAG}: is no MCAP file"),
    "damaged chunk": (_then(_flipped, packed=True), rf"{BAG}"),
    "bomb": (_then(_bomb, packed=True), rf"{BAG}: the chunk at byte \d+: unpacks to \d+ bytes, claims {2**36}"),
    "missing file": (_then(lambda path: (path / "bag.mcap").unlink()), rf"{BAG}: cannot be decoded: .*missing"),
    "cut database": (_then(lambda path: os.truncate(path / "bag.db3", 5000), mcap=False), rf"{BAG}"),
    "metadata is no YAML": (_then(lambda path: (path / "metadata.yaml").write_text("{")), rf"{BAG}: cannot be decoded"),
    "packed as a whole": (_made(mcap=False, packed=True), rf"{BAG}: is compressed by file"),
    "linked": (_then(_linked), r"bag.mcap: episode bag: is a link to .* outside"),
    "no messages": (_empty, rf"{BAG}: expected messages, found none"),
    "no topic of numbers": (_made(seconds=0.02), r"bag: expected topics with numbers or pictures"),
    "two types": (_made(more=_two_types), rf"{BAG}: /joints: has messages of two types"),
    "other joints": (_made(more=_joints(["wrist", "elbow"], [400])), rf"{BAG}: /joints: message 21: .*position.wrist"),
    "a joint less": (_made(more=_joints(["elbow"], [400])), rf"{BAG}: /joints: message 21: .*\(4\), got .*\(2\)"),
    "garbage": (_made(more=_garbage), rf"{BAG}: /joints: message \d+: cannot be decoded"),
    "smaller picture": (_made(more=_image("bgr8", 8, 576, 203)), rf"{BAG}: /camera: message 3: expected a picture of"),
    "short picture": (_made(more=_image("bgr8", 16, 100, 203)), rf"{BAG}: /camera: message 3: expected 16 rows"),
    "another encoding": (_made(more=_image("16UC1", 16, 1152, 203)), rf"{BAG}: /camera: message 3: encoding: .*16UC1"),
    "two sets of joints": (_mixed, r"bag_2: episode bag_2: /joints: expected .*as in bag_1"),
    "a gap": (
        _made(more=_arm),
        rf"{BAG}: /arm: step \d+: the message that it takes is 0.5\d\d s away, more than 0.5 s",
    ),
}


@pytest.mark.parametrize("kind", MUTANTS)
def test_a_broken_bag_ends_in_a_sentence(tmp_path: Path, kind: str) -> None:
    build, sentence = MUTANTS[kind]
    with pytest.raises(StoreError, match=sentence) as caught:
        foreign_sets.read_all(opened(build(tmp_path)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900


def test_a_topic_that_is_too_slow_for_the_largest_gap_is_no_field(tmp_path: Path) -> None:
    path = foreign_sets.bag(tmp_path / "bag")
    source = opened(path, "bag", Resampling(rate_hz=50, largest_gap_s=0.09))
    assert "/camera: 20 messages are too few for one every 0.09 s" in source.notes
    assert set(source.fields) == {"/command", "/joints"}
    with pytest.raises(StoreError, match=r"nearest: /nothing is no topic that is read; there are /camera, /command"):
        opened(path, "bag", Resampling(nearest=frozenset({"/nothing"})))
