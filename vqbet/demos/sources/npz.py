"""A folder of .npz files, one an episode: arrays with one row per step, and single values that describe the episode."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from vqbet.contract import StoreError
from vqbet.demos.sources import checked, identity, pictures
from vqbet.demos.sources.source import Field, Kind, Size, SourceEpisode

TIMES = ("timestamp", "timestamps", "time_s", "time")
RATES = ("control_hz", "rate_hz", "hz", "fps")
MAX_HEADER_BYTES = 2**16
MAX_LABEL_BYTES = 2**12


@dataclass(frozen=True, slots=True)
class Header:
    """Header of an array in an .npz file."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Npz:
    """A folder of episodes, each decoded when it is asked for."""

    format = "npz"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._paths = sorted(path.glob("*.npz"), key=lambda one: checked.natural(one.name))
        if not self._paths:
            raise StoreError(f"{path}: expected .npz files, one an episode, found {checked.listing(path)}")
        first: dict[str, str] = {}
        columns: dict[str, Header] = {}
        episodes, rates = [], set()
        for one in self._paths:
            where = f"{one}: episode {one.stem}"
            headers = _headers(path, one)
            columns = {name: header for name, header in headers.items() if header.shape}
            steps = _steps(columns, where)
            told = {name: f"{header.dtype} of {header.shape[1:]}" for name, header in columns.items()}
            first = first or told
            checked.same_fields(first, told, where, self._paths[0].name)
            labels = {name: self._label(one, name, header) for name, header in headers.items() if not header.shape}
            rates |= {checked.rate(labels.pop(name), f"{where}: {name}") for name in RATES if name in labels}
            known = {name: value for name, value in labels.items() if value is not None}
            episodes.append(SourceEpisode(one.stem, steps, known))
        if len(rates) > 1:
            raise StoreError(f"{path}: expected one rate, got {', '.join(f'{rate:g}' for rate in sorted(rates))} Hz")
        self.fields: Mapping[str, Field] = {name: _field(name, header) for name, header in columns.items()}
        self.episodes = tuple(episodes)
        self.rate_hz: float | None = next(iter(rates), None)
        others = [one.name for one in sorted(path.iterdir()) if one.suffix != ".npz"]
        self.notes: tuple[str, ...] = (f"other files are not read: {', '.join(others[:6])}",) if others else ()

    def time_s(self, episode: int) -> Float[np.ndarray, " N"] | None:
        """Return the array `timestamp`, or one of that meaning; None where there is none."""
        for name in TIMES:
            if name in self.fields and not self.fields[name].shape:
                time_s = self.numbers(episode, name).astype(np.float64)
                checked.steady(time_s, f"{self._where(episode)}: {name}")
                return time_s
        return None

    def numbers(self, episode: int, name: str) -> Shaped[np.ndarray, "N ..."]:
        """Return an array of an episode."""
        return self._array(self._paths[episode], name, f"{self._where(episode)}: {name}")

    def frames(
        self, episode: int, name: str, size: Size | None = None
    ) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield pictures; those of one episode are decoded together."""
        rows = self.numbers(episode, name)
        return pictures.scaled(iter(pictures.whole(rows, f"{self._where(episode)}: {name}")), size)

    def files(self) -> list[Path]:
        """Return the files of all episodes."""
        return list(self._paths)

    def identity(self, episode: int, name: str) -> str:
        """Return a digest of the episode's file and the field."""
        return identity.of([self._paths[episode]], name)

    def _where(self, episode: int) -> str:
        return f"{self._paths[episode]}: episode {self._paths[episode].stem}"

    def _array(self, path: Path, name: str, where: str) -> np.ndarray:
        with checked.decoding(where), np.load(path, allow_pickle=False) as content:
            return np.asarray(content[name])

    def _label(self, path: Path, name: str, header: Header) -> Any:
        where = f"{path}: episode {path.stem}: {name}"
        if header.dtype.itemsize > MAX_LABEL_BYTES:
            raise StoreError(f"{where}: expected at most {MAX_LABEL_BYTES} bytes, got {header.dtype.itemsize}")
        return checked.label(self._array(path, name, where)[()])


def _steps(columns: Mapping[str, Header], where: str) -> int:
    if not columns:
        raise StoreError(f"{where}: expected arrays with one row per step, found none")
    first, rows = next((name, header.shape[0]) for name, header in columns.items())
    for name, header in columns.items():
        if header.shape[0] != rows:
            raise StoreError(f"{where}: {name}: expected {rows} rows as in {first}, got {header.shape[0]}")
    return checked.count(rows, f"{where}: {first}: rows", 1, checked.MAX_STEPS)


def _headers(root: Path, path: Path) -> dict[str, Header]:
    """Return the header of each array, which agrees with the size that the archive says; nothing else is unpacked."""
    checked.plain(root, path, f"episode {path.stem}")
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                where = f"{path}: episode {path.stem}: {name}"
                if name in found or name == member.filename:
                    raise StoreError(f"{where}: expected each array once, as <name>.npy")
                with checked.decoding(where), archive.open(member) as file:
                    found[name] = _header(file, member.file_size, where)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise StoreError(
            f"{path}: episode {path.stem}: is not a whole .npz file: {error}; copy the set again"
        ) from error
    return found


def _header(file: IO[bytes], size: int, where: str) -> Header:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise StoreError(f"{where}: expected version 1.0 or 2.0 of the format, got {version[0]}.{version[1]}")
    shape, _, dtype = read(file, max_header_size=MAX_HEADER_BYTES)
    if shape or dtype.kind not in "SU":
        checked.plain_numbers(dtype, where)
    checked.room(shape, dtype, where)
    claimed = file.tell() + int(np.prod(shape, dtype=np.float64)) * dtype.itemsize
    if claimed != size:
        raise StoreError(f"{where}: claims {claimed} bytes, but unpacks to {size}; copy the set again")
    return Header(shape, dtype)


def _field(name: str, header: Header) -> Field:
    trailing = header.shape[1:]
    kind: Kind = "pictures" if pictures.channels(trailing) else "numbers"
    return Field(name, kind, pictures.upright(trailing), str(header.dtype))
