"""ROS 2 bags, SQLite or MCAP, by the package rosbags: one bag is one episode, its topics are brought to one rate.

Only the message types that rosbags brings along are read. A definition inside a bag would have to be turned into code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

from vqbet.contract import StoreError
from vqbet.demos.sources import bag_messages, checked, identity, pictures
from vqbet.demos.sources.source import Field, Size, SourceEpisode

ENDINGS = (".mcap", ".db3")
SECOND_NS = 1_000_000_000
COVERED = 0.5  # least share of a bag's time that a topic must cover to be a field


@dataclass(frozen=True, slots=True)
class Resampling:
    """Rules by which topics become fields with one row per step.

    rate_hz: of the steps; 0: the measured rate of the slowest camera or, without cameras, of the slowest topic.
    nearest: topics of which a step takes the nearest message; of all others it takes the last one before it.
    largest_gap_s: between a step and the message it takes.
    """

    rate_hz: float = 0.0
    nearest: frozenset[str] = frozenset()
    largest_gap_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of one bag: type, times of its messages in ns, and its first message as a field."""

    kind: str
    stamps: Int[np.ndarray, " M"]
    field: Field | None

    @property
    def interval_s(self) -> float:
        """Return the median time between messages."""
        return float(np.median(np.diff(self.stamps))) / SECOND_NS if len(self.stamps) > 1 else math.inf

    @property
    def gap_s(self) -> float:
        """Return the longest time between messages."""
        return float(np.diff(self.stamps).max()) / SECOND_NS if len(self.stamps) > 1 else math.inf


class Bags:
    """A bag, or a folder of bags, read message by message when a field is asked for."""

    format = "bag"

    def __init__(self, path: Path, resampling: Resampling | None = None) -> None:
        self.path = path
        self._how = resampling or Resampling()
        self._paths = bags(path)
        self._bags = [_look(one) for one in self._paths]
        notes: list[str] = []
        kept = [_kept(bag, self._how, notes) for bag in self._bags]
        first = kept[0]
        if not first:
            raise StoreError(
                f"{self._paths[0]}: expected topics with numbers or pictures, found {_told(self._bags[0])}"
            )
        shapes = [{name: f"{topic.kind} of {_shape(topic)}" for name, topic in bag.items()} for bag in kept]
        for one, mine in zip(self._paths, shapes, strict=True):
            checked.same_fields(shapes[0], mine, f"{one}: episode {one.stem}", self._paths[0].name)
        self.fields: Mapping[str, Field] = {name: topic.field for name, topic in first.items() if topic.field}
        unknown = sorted(set(self._how.nearest) - set(self.fields))
        if unknown:
            raise StoreError(
                f"{path}: nearest: {unknown[0]} is no topic that is read; there are {', '.join(self.fields)}"
            )
        self.rate_hz: float | None = checked.rate(self._how.rate_hz or _slowest(first), f"{path}: rate_hz")
        self._grids = [self._grid(one, bag) for one, bag in zip(self._paths, kept, strict=True)]
        self.episodes = tuple(
            SourceEpisode(one.stem, len(grid)) for one, grid in zip(self._paths, self._grids, strict=True)
        )
        self.notes = tuple(dict.fromkeys(notes))

    def time_s(self, episode: int) -> Float[np.ndarray, " N"] | None:
        """Return the time of each step since the first."""
        grid = self._grids[episode]
        return (grid - grid[0]) / SECOND_NS

    def numbers(self, episode: int, name: str) -> Shaped[np.ndarray, "N ..."]:
        """Return the numbers of a topic's messages, float64, at the steps."""
        places, where = self._places(episode, name), self._where(episode, name)
        field, wanted = self.fields[name], set(places.tolist())
        rows: dict[int, np.ndarray] = {}
        for number, message in enumerate(self._messages(episode, name)):
            if number in wanted:
                names, values = bag_messages.flat(message)
                if names != field.names:
                    raise StoreError(
                        f"{where}: message {number}: expected the numbers {', '.join(field.names[:6])} ... "
                        f"({len(field.names)}), got {', '.join(names[:6])} ... ({len(names)})"
                    )
                rows[number] = np.array(values)
        return np.stack([rows[number] for number in places.tolist()])

    def frames(
        self, episode: int, name: str, size: Size | None = None
    ) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield the picture at each step; a picture that holds for several steps is decoded once."""
        return self._frames(episode, name, size)

    def files(self) -> list[Path]:
        """Return the files of all bags."""
        found = []
        for one in self._paths:
            found += [one] if one.is_file() else sorted(path for path in one.iterdir() if path.is_file())
        return found

    def identity(self, episode: int, name: str) -> str:
        """Return a digest of the bag, the topic, and the messages that the steps take."""
        one = self._paths[episode]
        files = [one] if one.is_file() else sorted(path for path in one.iterdir() if path.is_file())
        return identity.of(files, name, self._places(episode, name).tolist())

    def _where(self, episode: int, name: str) -> str:
        return f"{self._paths[episode]}: episode {self._paths[episode].stem}: {name}"

    def _frames(self, episode: int, name: str, size: Size | None) -> Iterator[np.ndarray]:
        places, where, field = self._places(episode, name), self._where(episode, name), self.fields[name]
        step = 0
        for number, message in enumerate(self._messages(episode, name)):
            holds = int(np.searchsorted(places, number, side="right")) - step
            if holds:
                picture = bag_messages.picture(message, field.shape, f"{where}: message {number}")
                yield from pictures.scaled([picture] * holds, size)
                step += holds

    def _messages(self, episode: int, name: str) -> Iterator[Any]:
        where = self._where(episode, name)
        with _reader(self._paths[episode]) as reader:
            connections = [one for one in reader.connections if one.topic == name]
            for number, (connection, _, content) in enumerate(reader.messages(connections)):
                with checked.decoding(f"{where}: message {number}"):
                    message = bag_messages.store().deserialize_cdr(content, connection.msgtype)
                yield message

    def _grid(self, path: Path, bag: Mapping[str, Topic]) -> Int[np.ndarray, " N"]:
        """Return the times of the steps in ns: from when every topic has a message to when the first one ends."""
        assert self.rate_hz
        start = max(int(topic.stamps[0]) for topic in bag.values())
        end = min(int(topic.stamps[-1]) for topic in bag.values())
        steps = int((end - start) * self.rate_hz / SECOND_NS + 1e-6) + 1
        checked.count(
            steps, f"{path}: episode {path.stem}: steps in the time that all topics share", 2, checked.MAX_STEPS
        )
        return start + np.rint(np.arange(steps) * (SECOND_NS / self.rate_hz)).astype(np.int64)

    def _places(self, episode: int, name: str) -> Int[np.ndarray, " N"]:
        """Return the number of the message that each step takes. Raises StoreError where it is too far."""
        grid, stamps = self._grids[episode], self._bags[episode][name].stamps
        places = np.searchsorted(stamps, grid, side="right") - 1
        if name in self._how.nearest:
            after = np.minimum(places + 1, len(stamps) - 1)
            places = np.where(np.abs(stamps[after] - grid) < np.abs(grid - stamps[places]), after, places)
        far = np.abs(grid - stamps[places]) / SECOND_NS
        wrong = np.flatnonzero(far > self._how.largest_gap_s)
        if len(wrong):
            step = int(wrong[0])
            raise StoreError(
                f"{self._where(episode, name)}: step {step}: the message that it takes is {far[step]:.3f} s away, more "
                f"than {self._how.largest_gap_s:g} s; the topic has a gap of {self._bags[episode][name].gap_s:.3f} s"
            )
        return places


def bags(path: Path) -> list[Path]:
    """Return the bags at a path: itself, or those that lie in it."""
    if path.is_file() or (path / "metadata.yaml").is_file():
        return [path]
    found = [one for one in path.iterdir() if one.suffix in ENDINGS or (one / "metadata.yaml").is_file()]
    if not found:
        raise StoreError(f"{path}: expected a ROS 2 bag or a folder of them, found {checked.listing(path)}")
    return sorted(found, key=lambda one: checked.natural(one.name))


@contextmanager
def _reader(path: Path) -> Iterator[Any]:
    """Open a bag whose files are its own, and whose chunks unpack to what is allowed."""
    try:
        from rosbags.rosbag2 import Reader
    except ImportError as error:
        raise StoreError(f"{path}: reading bags needs rosbags: install vqbet[bags]") from error
    where = f"{path}: episode {path.stem}"
    for one in [path] if path.is_file() else sorted(path.iterdir()):
        checked.plain(path if path.is_dir() else path.parent, one, f"episode {path.stem}")
        if one.suffix == ".mcap":
            bag_messages.check_chunks(one, where)
    with checked.decoding(where), Reader(path) as reader:
        if reader.compression_mode:
            raise StoreError(f"{where}: is compressed by {reader.compression_mode}; unpack it: ros2 bag convert")
        yield reader


def _look(path: Path) -> dict[str, Topic]:
    """Return the topics of a bag. Every message is passed once, only the first of each topic is decoded."""
    stamps: dict[str, list[int]] = {}
    first: dict[str, tuple[str, bytes]] = {}
    with _reader(path) as reader:
        for connection, stamp, content in reader.messages(reader.connections):
            name = connection.topic
            if first.setdefault(name, (connection.msgtype, bytes(content)))[0] != connection.msgtype:
                raise StoreError(f"{path}: episode {path.stem}: {name}: has messages of two types")
            stamps.setdefault(name, []).append(stamp)
    found = {}
    for name, (kind, content) in first.items():
        where = f"{path}: episode {path.stem}: {name}"
        times = np.array(stamps[name], np.int64)
        back = np.flatnonzero(np.diff(times) < 0)
        if len(back):
            raise StoreError(f"{where}: message {int(back[0]) + 1}: lies before the last one")
        found[name] = Topic(kind, times, bag_messages.field(name, kind, content, where))
    if not found:
        raise StoreError(f"{path}: episode {path.stem}: expected messages, found none")
    return found


def _kept(bag: Mapping[str, Topic], how: Resampling, notes: list[str]) -> dict[str, Topic]:
    """Return the topics that become fields, and note the rate of each; the others are noted with the reason."""
    start = min(int(topic.stamps[0]) for topic in bag.values())
    end = max(int(topic.stamps[-1]) for topic in bag.values())
    found = {}
    for name, topic in sorted(bag.items()):
        covered = int(topic.stamps[-1] - topic.stamps[0])
        if topic.field is None:
            notes.append(f"{name}: {topic.kind} is not read")
        elif topic.interval_s > how.largest_gap_s or covered < COVERED * (end - start):
            notes.append(f"{name}: {len(topic.stamps)} messages are too few for one every {how.largest_gap_s:g} s")
        else:
            way = "nearest" if name in how.nearest else "hold"
            rate = 1 / topic.interval_s if topic.interval_s else math.inf
            notes.append(f"{name}: {rate:.4g} messages a second, largest gap {topic.gap_s:.3f} s, {way}")
            found[name] = topic
    return found


def _slowest(topics: Mapping[str, Topic]) -> float:
    """Return the rate of the slowest camera or topic: a whole number where it is within 2 % of one."""
    seen = [topic for topic in topics.values() if topic.field and topic.field.kind != "numbers"]
    rate = 1 / max(topic.interval_s for topic in seen or topics.values())
    return float(round(rate)) if round(rate) and abs(rate / round(rate) - 1) < 0.02 else float(f"{rate:.3g}")


def _shape(topic: Topic) -> str:
    return f"{topic.field.shape} {', '.join(topic.field.names[:4])}" if topic.field else "nothing"


def _told(bag: Mapping[str, Topic]) -> str:
    return ", ".join(f"{name} ({topic.kind})" for name, topic in list(bag.items())[:8])
