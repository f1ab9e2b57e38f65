"""Replay buffers of Diffusion Policy, Zarr v2 or v3, in a folder or a zip: data/<field> over steps, and their ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from vqbet.contract import StoreError
from vqbet.demos.sources import checked, identity, pictures, zarr_arrays
from vqbet.demos.sources.packed import Files, Folder, Zip
from vqbet.demos.sources.source import Field, Kind, Size, SourceEpisode
from vqbet.demos.sources.zarr_arrays import Claim

ENDS = "meta/episode_ends"
GROUPS = {".zgroup": 2, "zarr.json": 3}
DOCUMENTS = {2: "/.zarray", 3: "/zarr.json"}
TIMES = ("timestamp", "time_s")
BLOCK_BYTES = 2**26  # of decoded pictures that are in memory at a time


class ReplayBuffer:
    """A replay buffer, whose chunks are decoded when they are asked for."""

    format = "replay_buffer"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files, zarr_format = _found(path)
        self._names = self._files.names()
        ends = self._ends(zarr_format)
        ending = DOCUMENTS[zarr_format]
        fitting = [name for name in self._names if name.startswith("data/") and name.endswith(ending)]
        arrays = sorted(name.removesuffix(ending) for name in fitting)
        if zarr_format == 3:
            arrays = [name for name in arrays if _is_array(self._files, name)]
        if not arrays:
            raise StoreError(f"{self._files.where('data')}: expected arrays with one row per step, found none")
        notes: list[str] = []
        claims = [zarr_arrays.claim(self._files, name, zarr_format) for name in arrays]
        self._claims = {claim.name.removeprefix("data/"): claim for claim in claims}
        for name, claim in self._claims.items():
            if claim.shape[0] != ends[-1]:
                where = f"{self._files.where(claim.document)}: {name}"
                raise StoreError(
                    f"{where}: the last episode ends at step {ends[-1]}, but there are {claim.shape[0]} steps"
                )
            notes += _notes(claim, name)
        self.fields: Mapping[str, Field] = {name: _field(name, claim) for name, claim in self._claims.items()}
        self._starts = np.concatenate([[0], ends])
        lengths = np.diff(self._starts)
        self.episodes = tuple(SourceEpisode(str(number), int(steps)) for number, steps in enumerate(lengths))
        self.rate_hz: float | None = None
        self.notes = tuple(notes)

    def time_s(self, episode: int) -> Float[np.ndarray, " N"] | None:
        """Return the field `timestamp` or `time_s`; None where the buffer has none, as the published ones."""
        for name in TIMES:
            if name in self.fields and not self.fields[name].shape:
                time_s = self.numbers(episode, name).astype(np.float64)
                checked.steady(time_s, f"{self._files.where(f'data/{name}')}: episode {episode}: {name}")
                return time_s
        return None

    def numbers(self, episode: int, name: str) -> Shaped[np.ndarray, "N ..."]:
        """Return the rows of an episode."""
        start, stop = self._rows(episode)
        return self._values(episode, name, start, stop)

    def frames(
        self, episode: int, name: str, size: Size | None = None
    ) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield pictures, decoded file by file."""
        return pictures.scaled(self._pictures(episode, name), size)

    def files(self) -> list[Path]:
        """Return the files of the arrays that are read, or the zip."""
        if self.path.is_file():
            return [self.path]
        return sorted(Path(self._files.where(name)) for name in self._names)

    def identity(self, episode: int, name: str) -> str:
        """Return a digest of the buffer, the field, and the steps of the episode."""
        return identity.of(self.files(), name, *self._rows(episode))

    def _ends(self, zarr_format: int) -> np.ndarray:
        claim = zarr_arrays.claim(self._files, ENDS, zarr_format)
        where = self._files.where(ENDS)
        if len(claim.shape) != 1 or claim.dtype.kind not in "iu":
            raise StoreError(f"{where}: {ENDS}: expected whole numbers, got {claim.dtype} of {claim.shape}")
        checked.room(claim.shape, claim.dtype, f"{where}: {ENDS}", 2**27)
        ends = zarr_arrays.values(claim).astype(np.int64)
        check_ends(where, ends)
        return ends

    def _rows(self, episode: int) -> tuple[int, int]:
        return int(self._starts[episode]), int(self._starts[episode + 1])

    def _values(self, episode: int, name: str, start: int, stop: int) -> np.ndarray:
        claim = self._claims[name]
        where = f"{self._files.where(claim.document)}: episode {episode}: {name}"
        checked.room((stop - start, *claim.shape[1:]), claim.dtype, where)
        try:
            return zarr_arrays.values(claim, start, stop)
        except StoreError as error:
            raise StoreError(f"{error} (episode {episode})") from error

    def _pictures(self, episode: int, name: str) -> Iterator[np.ndarray]:
        claim, (start, stop) = self._claims[name], self._rows(episode)
        where = f"{self._files.where(claim.name)}: episode {episode}: {name}"
        row_bytes = int(np.prod(claim.shape[1:])) * claim.dtype.itemsize
        rows = claim.step_rows * max(1, BLOCK_BYTES // (claim.step_rows * row_bytes))
        for first in range(start - start % claim.step_rows, stop, rows):
            begin, end = max(first, start), min(first + rows, stop)
            yield from pictures.whole(self._values(episode, name, begin, end), where, begin - start)


def check_ends(where: str, ends: np.ndarray) -> None:
    """Raise StoreError where ends do not grow from above 0."""
    starts = np.concatenate([[0], ends[:-1]])
    wrong = np.flatnonzero(ends <= starts)
    if len(wrong):
        episode = wrong[0]
        raise StoreError(
            f"{where}: {ENDS}: episode {episode} ends at step {ends[episode]}, but starts at step {starts[episode]}"
        )


def _found(path: Path) -> tuple[Files, int]:
    """Return the files of the one buffer in a folder or a zip, and its version of Zarr."""
    whole: Files = Zip(path) if path.is_file() else Folder(path)
    names = set(whole.names())
    roots = {
        name.removesuffix(group): version
        for group, version in GROUPS.items()
        for name in names
        if name.rsplit("/", 1)[-1] == group and f"{name.removesuffix(group)}{ENDS}{DOCUMENTS[version]}" in names
    }
    if len(roots) != 1:
        told = ", ".join(sorted(roots)) or "none"
        raise StoreError(f"{path}: expected one replay buffer, a Zarr group with data/ and {ENDS}, found {told}")
    root, version = next(iter(roots.items()))
    if not root:
        return whole, version
    return (Zip(path, root) if path.is_file() else Folder(path / root)), version


def _is_array(files: Files, name: str) -> bool:
    return zarr_arrays.document(files, f"{name}/zarr.json").get("node_type") != "group"


def _field(name: str, claim: Claim) -> Field:
    trailing = claim.shape[1:]
    kind: Kind = "pictures" if pictures.channels(trailing) else "numbers"
    return Field(name, kind, pictures.upright(trailing), str(claim.dtype))


def _notes(claim: Claim, name: str) -> list[str]:
    if claim.refusal:
        return [f"{name} cannot be read: {claim.refusal}"]
    gone = zarr_arrays.missing(claim)
    return [f"{name} has no chunk {gone}, which Zarr would read as zeros"] if gone else []
