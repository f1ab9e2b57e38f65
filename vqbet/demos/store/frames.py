"""Pictures of one camera in a store, read where they are asked for. Only the chunks that are wanted are decoded.

A shard is compared with its sha256 in the manifest when it is first touched, and again if another file takes its place.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Int, UInt8

from vqbet.contract import StoreError
from vqbet.demos.store import shards
from vqbet.demos.store.manifest import REPAIR
from vqbet.demos.store.shards import Shards
from vqbet.files.manifest import Fingerprint

CACHE_BYTES = 256 * 2**20  # of decoded chunks, all cameras of a store together
OPEN = 64  # files kept open, of one camera
PIECE = 2**20  # bytes read at once for a sha256


@dataclass(frozen=True, slots=True)
class _Shard:
    """Open file, and offset and length of each of its chunks, without their checksums."""

    path: Path
    descriptor: int
    chunks: Int[np.ndarray, "chunks 2"]


@final
class StoredFrames:
    """Pictures (N, height, width, 3) of one camera; satisfies `contract.Frames`. One thread reads at a time.

    place: returns the path of a shard, by its key. files: size and sha256 of each shard, by its key. cache_bytes: of
    the chunks that are kept decoded, the latest; at least one is. Pickled, or after a fork, it starts without open
    files and chunks.
    """

    def __init__(
        self, place: Callable[[str], Path], layout: Shards, files: Mapping[str, Fingerprint], cache_bytes: int
    ) -> None:
        self._place, self._layout, self._files = place, layout, files
        self._cache_bytes = cache_bytes
        self._most = max(cache_bytes // layout.chunk_bytes, 1)
        self._verified: dict[int, tuple[int, ...]] = {}  # what the file system said of each shard that was compared
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _Shard] = OrderedDict()
        self._decoded: OrderedDict[int, np.ndarray] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredFrames, (self._place, self._layout, self._files, self._cache_bytes)

    def __del__(self) -> None:
        self._close()

    def _close(self) -> None:
        for shard in self._open.values():
            os.close(shard.descriptor)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, height, width, 3)."""
        return self._layout.shape

    def __len__(self) -> int:
        return self._layout.shape[0]

    def __getitem__(self, steps: Int[np.ndarray, "*B"]) -> UInt8[np.ndarray, "*B height width 3"]:
        """Return the pictures of these steps as a fresh array.

        Raises IndexError for a step that does not exist, StoreError naming the file where it is damaged or gone.
        """
        steps = np.asarray(steps)
        if steps.dtype.kind not in "iu":
            raise IndexError(f"expected whole numbers of steps, got {steps.dtype}")
        flat = steps.ravel().astype(np.int64)
        if flat.size and (flat.min() < 0 or flat.max() >= len(self)):
            raise IndexError(f"expected steps from 0 to {len(self) - 1}, got {flat.min()} to {flat.max()}")
        found = np.empty((flat.size, *self.shape[1:]), np.uint8)
        order = np.argsort(flat, kind="stable")  # each chunk is decoded once
        if os.getpid() != self._process:  # forked: the lock may be held by a thread that is not here
            self._close()
            self._begin()
        with self._lock:
            for place in order.tolist():
                chunk, row = divmod(int(flat[place]), self._layout.chunk_rows)
                found[place] = self._chunk(chunk)[row]
        return found.reshape(*steps.shape, *self.shape[1:])

    def verify(self) -> None:
        """Compare every shard with the manifest. Raises StoreError naming the first file that differs."""
        with self._lock:
            for shard in range(len(self._layout)):
                self._shard(shard)

    def _chunk(self, number: int) -> UInt8[np.ndarray, "rows height width 3"]:
        chunk = self._decoded.get(number)
        if chunk is not None:
            self._decoded.move_to_end(number)
            return chunk
        shard, place = divmod(number, self._layout.shard_chunks)
        source = self._shard(shard)
        offset, length = source.chunks[place].tolist()
        where = f"{source.path}: chunk {place}"
        content = self._bytes(source.descriptor, offset, length + shards.CHECKSUM_BYTES, source.path)
        full = len(self._decoded) >= self._most
        chunk = self._decoded.popitem(last=False)[1] if full else np.empty(self._layout.chunk_shape, np.uint8)
        try:
            shards.decode(content, chunk, where)
        except StoreError as error:
            raise StoreError(f"{error}; {REPAIR}") from error
        self._decoded[number] = chunk
        return chunk

    def _shard(self, number: int) -> _Shard:
        shard = self._open.get(number)
        if shard is None:
            if len(self._open) >= OPEN:
                os.close(self._open.popitem(last=False)[1].descriptor)
            shard = self._open[number] = self._opened(number)
        else:
            self._open.move_to_end(number)
        return shard

    def _opened(self, number: int) -> _Shard:
        key = self._layout.key(number)
        path, entry = self._place(key), self._files[key]
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            gone = "the store was replaced or removed while it was read; run it again"
            sentence = gone if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}; {REPAIR}"
            raise StoreError(f"{path}: {sentence}") from error
        try:
            status = os.fstat(descriptor)
            identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if self._verified.get(number) != identity:
                if status.st_size != entry.size or self._sha256(descriptor, entry.size, path) != entry.sha256:
                    raise StoreError(
                        f"{path}: damaged, or replaced while it was read: its sha256 is not the one in the manifest; "
                        f"{REPAIR}"
                    )
                self._verified[number] = identity
            start = entry.size - self._layout.index_bytes
            table = self._bytes(descriptor, start, self._layout.index_bytes, path)
            return _Shard(path, descriptor, shards.index(table, self._layout, number, entry.size, f"{path}"))
        except BaseException:
            os.close(descriptor)
            raise

    def _sha256(self, descriptor: int, size: int, path: Path) -> str:
        digest = hashlib.sha256()
        for start in range(0, size, PIECE):
            digest.update(self._bytes(descriptor, start, min(PIECE, size - start), path))
        return digest.hexdigest()

    def _bytes(self, descriptor: int, offset: int, length: int, path: Path) -> bytes:
        try:
            content = os.pread(descriptor, length, offset)
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}; {REPAIR}") from error
        if len(content) != length:
            raise StoreError(f"{path}: expected {length} bytes at {offset}, got {len(content)}; {REPAIR}")
        return content
