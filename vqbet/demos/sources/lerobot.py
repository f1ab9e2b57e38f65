"""LeRobot sets, v2.0, v2.1 and v3.0, read by pyarrow and PyAV without LeRobot.

What the set says of itself is compared with what lies there: totals, lengths, the episode table, fps against
timestamps, and the statistics of numbers. Images in parquet are lossless, video is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from vqbet.contract import StoreError
from vqbet.demos.sources import checked, footer, identity, lerobot_claims, lerobot_meta, parquet, pictures, video
from vqbet.demos.sources.lerobot_meta import BOOKKEEPING, NUMBERS, Entry, Info
from vqbet.demos.sources.source import Field, Kind, Size, SourceEpisode

if TYPE_CHECKING:
    import pyarrow as pa

KINDS: Mapping[str, Kind] = {"image": "pictures", "video": "video"}


class LeRobot:
    """A LeRobot set in a folder. Raises StoreError where the set contradicts itself."""

    format = "lerobot"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._info = lerobot_meta.info(path)
        self._entries = lerobot_meta.entries(path, self._info)
        self._rows: dict[int, int] = {}  # first row of each episode in its file
        self._agreed: set[int] = set()  # episodes whose bookkeeping was checked
        self._kept: tuple[int, Any] = (-1, None)
        notes = list(self._info.notes)
        self.fields: Mapping[str, Field] = _fields(self._info, notes)
        self._look(notes)
        lerobot_claims.of_the_set(path, self._info, [entry.data for entry in self._entries], self.steps)
        absent = self._absent(notes)
        self.episodes = tuple(
            SourceEpisode(
                str(index),
                entry.steps,
                {"task": " | ".join(entry.tasks), **entry.labels} if entry.tasks else entry.labels,
                absent[index],
            )
            for index, entry in enumerate(self._entries)
        )
        self.rate_hz: float | None = self._info.fps
        self.notes = tuple(notes)

    @property
    def steps(self) -> int:
        """Return the number of steps of all episodes."""
        return sum(entry.steps for entry in self._entries)

    def time_s(self, episode: int) -> Float[np.ndarray, " N"] | None:
        """Return `timestamp` of each step, checked against fps."""
        time_s = self._column(episode, "timestamp").astype(np.float64).ravel()
        if episode not in self._agreed:
            entry, where = self._entries[episode], self._where(episode)
            columns = {name: self._column(episode, name).ravel() for name in BOOKKEEPING[1:]}
            lerobot_claims.of_the_rows(columns, time_s, episode, entry, self._info, where)
            self._agreed.add(episode)
        return time_s

    def numbers(self, episode: int, name: str) -> Shaped[np.ndarray, "N ..."]:
        """Return a feature of numbers, compared with the statistics that the set has of this episode."""
        self.time_s(episode)
        values = self._column(episode, name)
        entry = self._entries[episode]
        lerobot_claims.of_the_values(
            values, entry.statistics.get(name, {}), f"{self._where(episode)}: {name}", entry.where
        )
        return values

    def frames(
        self, episode: int, name: str, size: Size | None = None
    ) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield the pictures of an image or video feature."""
        if self.fields[name].kind == "pictures":
            return pictures.scaled(self._images(episode, name), size)
        return self._film(episode, name, size)

    def files(self) -> list[Path]:
        """Return meta/, and the data and videos of all episodes."""
        meta = sorted(path for path in (self.path / "meta").rglob("*") if path.is_file())
        data = dict.fromkeys(entry.data for entry in self._entries)
        films = dict.fromkeys(
            clip.path for entry in self._entries for clip in entry.clips.values() if clip.path.exists()
        )
        return [*meta, *data, *films]

    def identity(self, episode: int, name: str) -> str:
        """Return a digest of the episode's video and its place in it, or of its parquet file and its first row."""
        entry = self._entries[episode]
        if self.fields[name].kind == "pictures":
            return identity.of([entry.data], name, self._rows[episode], entry.steps)
        clip = entry.clips[name]
        return identity.of([clip.path], clip.first, clip.total, entry.steps, self._info.fps)

    def _where(self, episode: int) -> str:
        return f"{self._entries[episode].data}: episode {episode}"

    def _look(self, notes: list[str]) -> None:
        """Check footers and columns of every data file, and find the rows of every episode by its episode_index."""
        members: dict[Path, list[int]] = {}
        for index, entry in enumerate(self._entries):
            members.setdefault(entry.data, []).append(index)
        more: set[str] = set()
        for path, episodes in members.items():
            where = f"{path}: episode {episodes[0]}"
            file = parquet.opened(self.path, path, f"episode {episodes[0]}")
            more |= set(_check_columns(file.schema_arrow, self._info, where))
            if self._info.version == "v3.0":
                found = parquet.table(file, path, ["episode_index"], None, where)
                rows = parquet.numbers(found.column(0), (), f"{where}: episode_index")
                self._rows |= {episode: _first_row(rows, episode, self._entries[episode], path) for episode in episodes}
            else:
                self._rows[episodes[0]] = 0
                steps = self._entries[episodes[0]].steps
                count = sum(group.rows for group in footer.groups(path, f"episode {episodes[0]}"))
                if count != steps:
                    raise StoreError(f"{where}: expected {steps} rows, its length in meta/, got {count}")
        if more:
            notes.append(f"columns that meta/info.json does not name are not read: {', '.join(sorted(more))}")

    def _absent(self, notes: list[str]) -> list[tuple[str, ...]]:
        """Return for each episode the video features whose file is not there."""
        absent: list[list[str]] = [[] for _ in self._entries]
        for name, field in self.fields.items():
            if field.kind != "video":
                continue
            lacking = [index for index, entry in enumerate(self._entries) if not entry.clips[name].path.exists()]
            for index in lacking:
                absent[index].append(name)
            path = self._entries[0].clips[name].path
            if len(lacking) == len(self._entries):
                near = next((folder for folder in path.parents if folder.is_dir()), self.path)
                raise StoreError(
                    f"{path}: episode 0: {name}: there is no video of any episode; looked for it by video_path of "
                    f"meta/info.json, found in {near}: {checked.listing(near)}"
                )
            if lacking:
                notes.append(
                    f"{name}: {len(lacking)} of {len(self._entries)} episodes have no video, the first is {lacking[0]}"
                )
        return [tuple(names) for names in absent]

    def _groups(self, episode: int, path: Path) -> tuple[parquet.ParquetFile, list[int], int]:
        """Return the open file of an episode, its row groups that hold the episode, and the first row among those."""
        file = parquet.opened(self.path, path, f"episode {episode}")
        start, groups, skipped, row = self._rows[episode], [], 0, 0
        for group, one in enumerate(footer.groups(path, f"episode {episode}")):
            rows = one.rows
            if row + rows <= start:
                skipped = row + rows
            elif row < start + self._entries[episode].steps:
                groups.append(group)
            row += rows
        return file, groups, start - skipped

    def _column(self, episode: int, name: str) -> np.ndarray:
        """Return a column of an episode. The numbers of one episode are kept, since they are asked for one by one."""
        if self._kept[0] != episode:
            wanted = [*BOOKKEEPING, *(name for name, field in self.fields.items() if field.kind == "numbers")]
            entry = self._entries[episode]
            file, groups, first = self._groups(episode, entry.data)
            content = parquet.table(file, entry.data, wanted, groups, self._where(episode))
            self._kept = (episode, content.slice(first, entry.steps))
        shape, where = self._info.features[name].shape, f"{self._where(episode)}: {name}"
        return parquet.numbers(self._kept[1].column(name), shape, where)

    def _images(self, episode: int, name: str) -> Iterator[np.ndarray]:
        entry, shape = self._entries[episode], self.fields[name].shape
        self.time_s(episode)
        file, groups, first = self._groups(episode, entry.data)
        row = 0
        where = f"{self._where(episode)}: {name}"
        with checked.decoding(where):
            for batch in file.iter_batches(parquet.BATCH_ROWS, groups, [name], use_threads=False):
                for value in batch.column(0):
                    if first <= row < first + entry.steps:
                        content = (value.as_py() or {}).get("bytes")
                        yield pictures.png(content, shape, f"{where}: step {row - first}")
                    row += 1

    def _film(self, episode: int, name: str, size: Size | None) -> Iterator[np.ndarray]:
        clip, field = self._entries[episode].clips[name], self.fields[name]
        where = f"{clip.path}: episode {episode}: {name}"
        checked.plain(self.path, clip.path, f"episode {episode}: {name}")
        time_s = self.time_s(episode)
        assert time_s is not None
        claim = video.Footage(
            clip.path, where, self._info.fps, clip.first, clip.total, (field.shape[0], field.shape[1])
        )
        return video.frames(claim, clip.first / self._info.fps + time_s, size)


def _fields(told: Info, notes: list[str]) -> dict[str, Field]:
    found = {}
    for name, feature in told.features.items():
        if name in BOOKKEEPING:
            continue
        if feature.dtype in NUMBERS:
            found[name] = Field(name, "numbers", feature.shape, feature.dtype, feature.names)
        elif feature.dtype in KINDS and pictures.channels(feature.shape) and not feature.info.get("video.is_depth_map"):
            film = feature.dtype == "video"
            codec = str(feature.info.get("video.codec") or feature.info.get("codec") or "") if film else ""
            shape = pictures.upright(feature.shape)
            found[name] = Field(
                name, KINDS[feature.dtype], shape, "uint8", codec=str(codec) if feature.dtype == "video" else ""
            )
        else:
            notes.append(f"{name}: {feature.dtype} of {feature.shape} is not read")
    return found


def _check_columns(schema: pa.Schema, told: Info, where: str) -> list[str]:
    """Raise StoreError where a column is missing or of another type; return those that info.json does not name."""
    import pyarrow as pa

    for name, feature in told.features.items():
        if feature.dtype not in NUMBERS and feature.dtype != "image":
            continue
        if name not in schema.names:
            raise StoreError(
                f"{where}: {name}: meta/info.json promises this column, found {', '.join(schema.names[:20])}; give the "
                "features in meta/info.json the names of the columns"
            )
        column = schema.field(name).type
        column = column.storage_type if isinstance(column, pa.BaseExtensionType) else column
        if feature.dtype == "image":
            if not pa.types.is_struct(column) or "bytes" not in [
                column.field(i).name for i in range(column.num_fields)
            ]:
                raise StoreError(f"{where}: {name}: expected pictures as struct{{bytes, path}}, got {column}")
            continue
        depth, leaf = parquet.leaf(column)
        plain = pa.types.is_integer(leaf) or pa.types.is_floating(leaf) or pa.types.is_boolean(leaf)
        if not plain or depth not in ((0, 1) if feature.shape == (1,) else (len(feature.shape),)):
            raise StoreError(
                f"{where}: {name}: expected {feature.dtype} of {feature.shape}, got the column type {column}"
            )
    return [name for name in schema.names if name not in told.features]


def _first_row(rows: np.ndarray, episode: int, entry: Entry, path: Path) -> int:
    found = np.flatnonzero(rows == episode)
    if not len(found):
        raise StoreError(
            f"{path}: episode {episode}: episode_index: the file has no row of it, but {entry.where} looks for there"
        )
    if len(found) != entry.steps or found[-1] - found[0] + 1 != entry.steps:
        raise StoreError(
            f"{path}: episode {episode}: episode_index: expected {entry.steps} rows one after the other, "
            f"got {len(found)} from row {found[0]} to {found[-1]}"
        )
    return int(found[0])
