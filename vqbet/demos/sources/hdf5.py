"""HDF5 files of robomimic and Isaac Lab: data/demo_<n> with actions, obs/<key>, states; mask/<filter> names of demos.

Nothing outside the file is followed: external and soft links, external storage and virtual datasets are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from vqbet.contract import StoreError
from vqbet.demos.sources import checked, identity, pictures
from vqbet.demos.sources.source import Field, Size, SourceEpisode

DEPTH = 16  # of groups in groups
STANDING = ("initial_state",)  # groups of a demonstration that have no row per step
TIMES = ("timestamp", "timestamps", "time_s")
MAX_CHUNK_BYTES = 2**30
FILTERS = frozenset({1, 2, 3, 4, 32000})  # deflate, shuffle, fletcher32, szip, lzf: they are part of h5py
BLOCK_BYTES = 2**26  # of decoded pictures that are in memory at a time
PIECES = 2_000_000  # chunks of one dataset


@dataclass(frozen=True, slots=True)
class Column:
    """One dataset of a demonstration: the shape of a row and the dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Hdf5:
    """A file of demonstrations, whose datasets are decoded when they are asked for."""

    format = "hdf5"

    def __init__(self, path: Path) -> None:
        self.path = path = _file(path)
        notes: list[str] = []
        with _opened(path) as file, checked.decoding(str(path)):
            data = _group(file, "data", str(path))
            names = sorted(data, key=checked.natural)
            if not names:
                raise StoreError(f"{path}: data: expected demonstrations, found none")
            episodes: list[SourceEpisode] = []
            first: dict[str, Column] = {}
            for name in names:
                demo = _group(data, name, f"{path}: data")
                with checked.decoding(f"{path}: {name}"):
                    columns, steps = self._look(demo, name)
                if not first:
                    first = columns
                checked.same_fields(_told(first), _told(columns), f"{path}: {name}", names[0])
                episodes.append(SourceEpisode(name, steps, _labels(demo)))
            total = checked.label(data.attrs.get("total"))
            steps = sum(one.steps for one in episodes)
            if total is not None and total != steps:
                raise StoreError(f"{path}: data: total: says {total}, but the demonstrations have {steps} steps")
            self.rate_hz: float | None = _rate(data, f"{path}: data: env_args")
            self.episodes = tuple(_masked(file, episodes, f"{path}: mask", notes))
        self.fields: Mapping[str, Field] = {name: _field(name, column) for name, column in first.items()}
        self.notes = tuple(notes)

    def _look(self, demo: Any, name: str) -> tuple[dict[str, Column], int]:
        """Return the fields of a demonstration and its steps; nothing is decoded."""
        where = f"{self.path}: {name}"
        found = dict(_datasets(demo, where))
        if not found:
            raise StoreError(f"{where}: expected datasets with one row per step, found none")
        said = checked.label(demo.attrs.get("num_samples"))
        first = "actions" if "actions" in found else next(iter(found))
        steps = said if said is not None else (found[first].shape or (0,))[0]
        steps = checked.count(steps, f"{where}: num_samples", 1, checked.MAX_STEPS)
        columns = {}
        for field, dataset in found.items():
            place = f"{where}: {field}"
            dtype = checked.plain_numbers(dataset.dtype, place)
            if not dataset.shape or dataset.shape[0] != steps:
                raise StoreError(f"{place}: expected {steps} rows, one for every step, got the shape {dataset.shape}")
            checked.room(dataset.shape[1:], dtype, place, MAX_CHUNK_BYTES)
            _check_storage(dataset, place)
            columns[field] = Column(dataset.shape[1:], dtype)
        return columns, steps

    def time_s(self, episode: int) -> Float[np.ndarray, " N"] | None:
        """Return a field `timestamp`; None where there is none, as in robomimic."""
        for name in TIMES:
            if name in self.fields and not self.fields[name].shape:
                time_s = self.numbers(episode, name).astype(np.float64)
                checked.steady(time_s, f"{self.path}: {self.episodes[episode].name}: {name}")
                return time_s
        return None

    def numbers(self, episode: int, name: str) -> Shaped[np.ndarray, "N ..."]:
        """Return a dataset of a demonstration."""
        where = f"{self.path}: {self.episodes[episode].name}: {name}"
        with _opened(self.path) as file, checked.decoding(where):
            dataset = self._dataset(file, episode, name)
            checked.room(dataset.shape, dataset.dtype, where)
            return np.asarray(dataset[...])

    def frames(
        self, episode: int, name: str, size: Size | None = None
    ) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield pictures, decoded chunk by chunk."""
        return pictures.scaled(self._pictures(episode, name), size)

    def files(self) -> list[Path]:
        """Return the file."""
        return [self.path]

    def identity(self, episode: int, name: str) -> str:
        """Return a digest of the file, the demonstration and the field."""
        return identity.of([self.path], self.episodes[episode].name, name)

    def _dataset(self, file: Any, episode: int, name: str) -> Any:
        return file["data"][self.episodes[episode].name][name]

    def _pictures(self, episode: int, name: str) -> Iterator[np.ndarray]:
        where = f"{self.path}: {self.episodes[episode].name}: {name}"
        with _opened(self.path) as file, checked.decoding(where):
            dataset = self._dataset(file, episode, name)
            rows = dataset.chunks[0] if dataset.chunks else 1
            rows *= max(1, BLOCK_BYTES // (rows * math.prod(dataset.shape[1:]) * dataset.dtype.itemsize))
            for start in range(0, dataset.shape[0], rows):
                yield from pictures.whole(np.asarray(dataset[start : start + rows]), where, start)


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(one for ending in ("*.hdf5", "*.h5") for one in path.glob(ending))
    if len(found) != 1:
        raise StoreError(f"{path}: expected one HDF5 file, found {len(found)}; name the one you mean")
    return found[0]


def _opened(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise StoreError(f"{path}: reading HDF5 needs h5py: install vqbet[hdf5]") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened as HDF5: {error}; copy the file again") from error


def _member(group: Any, name: str, where: str) -> Any:
    """Return a member of a group. Raises StoreError where it is missing, or a link to elsewhere."""
    import h5py

    names = list(group)  # `name in group` would follow a link
    if name not in names:
        raise StoreError(f"{where}: expected {name!r}, found {', '.join(names[:8]) or 'nothing'}")
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        target = f"{getattr(link, 'filename', '')}:{getattr(link, 'path', 'nothing')}".lstrip(":")
        raise StoreError(f"{where}: {name}: is a link to {target}; a file must hold its own data: h5repack it")
    with checked.decoding(f"{where}: {name}"):
        return group[name]


def _group(parent: Any, name: str, where: str) -> Any:
    import h5py

    found = _member(parent, name, where)
    if not isinstance(found, h5py.Group):
        raise StoreError(f"{where}: {name}: expected a group, got a {type(found).__name__.lower()}")
    return found


def _datasets(group: Any, where: str, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the datasets of a demonstration in groups in groups, with their paths in it."""
    import h5py

    if depth > DEPTH:
        raise StoreError(f"{where}: {prefix}: groups lie more than {DEPTH} deep in one another; a group holds itself")
    for name in group:
        found = _member(group, name, f"{where}: {prefix}".removesuffix(": "))
        if isinstance(found, h5py.Dataset):
            yield f"{prefix}{name}", found
        elif isinstance(found, h5py.Group) and f"{prefix}{name}" not in STANDING:
            yield from _datasets(found, where, f"{prefix}{name}/", depth + 1)


def _check_storage(dataset: Any, where: str) -> None:
    """Raise StoreError for bytes that lie elsewhere, are not there, or are packed by an unknown filter."""
    if dataset.is_virtual or dataset.external:
        raise StoreError(f"{where}: is stored in other files; a file must hold its own data: h5repack it")
    if dataset.size and not dataset.id.get_storage_size():
        raise StoreError(f"{where}: claims {dataset.shape} numbers, but none is stored; record the demonstration again")
    if dataset.chunks is None:
        return
    checked.room(dataset.chunks, dataset.dtype, f"{where}: a chunk", MAX_CHUNK_BYTES)
    wanted = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    stored = dataset.id.get_num_chunks()
    if stored != wanted or wanted > PIECES:
        raise StoreError(f"{where}: expected {wanted} chunks, at most {PIECES}, got {stored}; copy the file again")
    plist = dataset.id.get_create_plist()
    for place in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(place)
        if code not in FILTERS:
            told = name.decode("utf-8", "replace")
            raise StoreError(
                f"{where}: is packed by the filter {code} ({told}), which h5py does not have: h5repack -f GZIP=4 it"
            )


def _labels(demo: Any) -> dict[str, Any]:
    """Return what the attributes of a demonstration say; the model file of robomimic and the number of steps do not."""
    found = {}
    for name, value in demo.attrs.items():
        kept = checked.label(value)
        if kept is not None and name not in ("num_samples", "model_file"):
            found[name] = kept
    return found


def _masked(file: Any, episodes: list[SourceEpisode], where: str, notes: list[str]) -> list[SourceEpisode]:
    """Return the episodes with the filters of mask/ that name them, as the label `filters`."""
    if "mask" not in list(file):
        return episodes
    known, named = {one.name for one in episodes}, dict[str, list[str]]()
    group = _group(file, "mask", where.removesuffix(": mask"))
    for name in group:
        dataset = _member(group, name, where)
        if dataset.dtype.kind != "S" or dataset.ndim != 1:
            raise StoreError(f"{where}: {name}: expected the names of demonstrations as bytes, got {dataset.dtype}")
        members = [one.decode("utf-8", "replace") for one in dataset[...].tolist()]
        strange = [one for one in members if one not in known]
        if strange:
            raise StoreError(f"{where}: {name}: names {strange[0]!r}, which is not in data")
        notes.append(f"mask/{name} names {len(members)} of {len(episodes)} demonstrations")
        for one in members:
            named.setdefault(one, []).append(name)
    return [
        SourceEpisode(one.name, one.steps, {**one.labels, "filters": tuple(named.get(one.name, ()))})
        for one in episodes
    ]


def _rate(data: Any, where: str) -> float | None:
    """Return the control rate of env_args: robosuite's control_freq, or Isaac Lab's 1 / (dt * decimation)."""
    text = checked.label(data.attrs.get("env_args"))
    if not isinstance(text, str):
        return None
    try:
        told = json.loads(data.attrs["env_args"])
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{where}: is not readable JSON: {error}") from error
    arguments, simulator = (told.get(key) if isinstance(told, dict) else None for key in ("env_kwargs", "sim_args"))
    if isinstance(arguments, dict) and "control_freq" in arguments:
        return checked.rate(arguments["control_freq"], f"{where}: control_freq")
    if isinstance(simulator, dict) and {"dt", "decimation"} <= set(simulator):
        period_s, steps = (checked.rate(simulator[key], f"{where}: {key}") for key in ("dt", "decimation"))
        return 1 / (period_s * steps)
    return None


def _told(columns: Mapping[str, Column]) -> dict[str, str]:
    return {name: f"{column.dtype} of {column.shape}" for name, column in columns.items()}


def _field(name: str, column: Column) -> Field:
    kind = "pictures" if pictures.channels(column.shape) else "numbers"
    return Field(name, kind, pictures.upright(column.shape), str(column.dtype))  # type: ignore[arg-type]
