"""Pictures in a store: what is written is what is read, chunk by chunk, and nothing else is."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.zstd import compress

from tests.demos.test_store_refused import edit, refused, sign
from tests.support.examples import up_to
from tests.support.pictures import pictured
from tests.support.synthetic import synthetic
from vqbet.contract import Camera, Demonstrations, StoreError
from vqbet.demos import store
from vqbet.demos.store import schema, shards
from vqbet.demos.store.frames import OPEN, StoredFrames
from vqbet.demos.store.shards import Shards

TOP, WRIST = Camera("top", 24, 32), Camera("wrist-left", 8, 6, lossy="av1")
GOLDEN_PICTURES = "43b9ff795be512cfe7f29aaa4e7557499161ee5aa25ac0d73b22ea523c0762bc"
FIRST = "data/camera/top/c.0.0.0.0"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk, and shards of 50 pictures."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(shards, "SHARD_FRAMES", 50)


@pytest.fixture
def demos() -> Demonstrations:
    return pictured(6, cameras=(TOP, WRIST))


@pytest.fixture
def folder(tmp_path: Path, demos: Demonstrations) -> Path:
    store.write(tmp_path / "demo.zarr", demos)
    return tmp_path / "demo.zarr"


def files(folder: Path, camera: str = "top") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "data/camera" / camera).iterdir()}


def test_pictures_come_back_in_any_order_and_shape(folder: Path, demos: Demonstrations) -> None:
    found = store.read(folder)
    assert found.spec == demos.spec
    steps = len(demos.action)
    for name, pictures in demos.cameras.items():
        frames = found.cameras[name]
        assert frames.shape == pictures.shape
        assert np.array_equal(frames[np.arange(steps)], pictures)
        wanted = np.random.default_rng(0).integers(steps, size=(3, 1, 4), dtype=np.int32)
        assert np.array_equal(frames[wanted], pictures[wanted])
        assert np.array_equal(frames[np.array(7)], pictures[7])
        assert frames[np.zeros((2, 0), int)].shape == (2, 0, *pictures.shape[1:])
        mine = frames[np.array([3])]
        mine[...] = 0  # a fresh array
        assert np.array_equal(frames[np.array([3])], pictures[[3]])


@pytest.mark.parametrize("steps", [np.array([0, 10**6]), np.array([-1]), np.array([0.5]), np.array([True])])
def test_a_step_that_does_not_exist_is_an_index_error(folder: Path, steps: np.ndarray) -> None:
    with pytest.raises(IndexError, match="expected"):
        store.read(folder).cameras["top"][steps]


@up_to(15)
@given(rows=st.integers(1, 12), chunks=st.integers(1, 4), cache=st.integers(0, 60_000), seed=st.integers(0, 99))
def test_any_layout_and_any_cache_give_the_same_pictures(
    tmp_path: Path, rows: int, chunks: int, cache: int, seed: int
) -> None:
    demos = pictured(2, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "CHUNK_FRAMES", rows)
        patch.setattr(shards, "SHARD_FRAMES", rows * chunks)
        store.write(tmp_path / "demo.zarr", demos)
    steps = np.random.default_rng(seed).integers(len(demos.action), size=40)
    frames = store.read(tmp_path / "demo.zarr", cache_bytes=cache).cameras["top"]
    assert np.array_equal(frames[steps], demos.cameras["top"][steps])


def test_a_plain_zarr_reader_reads_them_too(folder: Path, demos: Demonstrations) -> None:
    group = zarr.open_group(str(folder), mode="r")
    for name, pictures in demos.cameras.items():
        array: Any = group[f"data/camera/{name}"]
        assert np.array_equal(array[...], pictures)
        assert (array.chunks[0], array.shards[0]) == {"top": (10, 50), "wrist-left": (4, 48)}[name]
    assert group.attrs["schema_version"] == 3


DRAWN = ((96, 10, 1000), (128, 10, 1000), (224, 4, 888), (480, 1, 194), (4096, 1, 2))
FILMED = ((96, 4, 1000), (128, 4, 1000), (224, 2, 890), (480, 1, 194), (4096, 1, 2))


@pytest.mark.parametrize(("codec", "expected"), [("", DRAWN), ("av1", FILMED)])
def test_a_layout_depends_on_size_and_kind_of_pictures_alone(
    monkeypatch: pytest.MonkeyPatch, codec: str, expected: tuple[tuple[int, int, int], ...]
) -> None:
    monkeypatch.setattr(shards, "SHARD_FRAMES", 1000)
    for size, rows, shard in expected:
        layouts = [Shards.of(Camera("top", size, size, codec), steps) for steps in (1, 10**7)]
        assert [(layout.chunk_rows, layout.shard_rows) for layout in layouts] == 2 * [(rows, shard)], size


def test_more_episodes_leave_full_shards_as_they_are(folder: Path, tmp_path: Path, demos: Demonstrations) -> None:
    shorter = len(demos.action) > 250
    assert shorter
    ends = demos.episode_ends[:-1]
    fewer = replace(
        demos,
        observation=demos.observation[: ends[-1]],
        action=demos.action[: ends[-1]],
        time_s=demos.time_s[: ends[-1]],
        state=None if demos.state is None else demos.state[: ends[-1]],
        episode_ends=ends,
        columns={name: column[:-1] for name, column in demos.columns.items()},
        cameras={name: frames[np.arange(ends[-1])] for name, frames in demos.cameras.items()},
    )
    store.write(tmp_path / "fewer.zarr", fewer)
    before, after = files(tmp_path / "fewer.zarr"), files(folder)
    full = [f"c.{shard}.0.0.0" for shard in range(int(ends[-1]) // 50)]
    assert len(full) >= 4
    assert all(before[name] == after[name] for name in full)


def test_equal_pictures_give_equal_bytes_from_an_array_and_from_a_store(folder: Path, tmp_path: Path) -> None:
    found = store.read(folder)
    assert store.write(tmp_path / "again.zarr", found) == found.digest
    assert store.write(folder, found) == found.digest  # over itself
    assert store.verify(folder).digest == found.digest


def test_the_bytes_of_schema_version_3_are_these(tmp_path: Path) -> None:
    """Of the locked zstd: another version of it may compress to other bytes, and every reader takes those as well."""
    demos = pictured(3)
    steps = np.arange(len(demos.action))
    counted = (steps[:, None, None, None] + np.arange(24 * 32 * 3).reshape(24, 32, 3)).astype(np.uint8)
    names = {"observation": 4, "action": 2}
    whole = {name: np.arange(len(steps) * width, dtype=np.float32).reshape(-1, width) for name, width in names.items()}
    exact = replace(demos, **whole, state=None, cameras={"top": counted})  # no sine, the same on every machine
    assert store.write(tmp_path / "demo.zarr", exact) == GOLDEN_PICTURES


def test_never_more_than_a_chunk_is_asked_for(tmp_path: Path, demos: Demonstrations) -> None:
    class Asked:
        shape = demos.cameras["top"].shape
        most = 0

        def __getitem__(self, steps: np.ndarray) -> np.ndarray:
            self.most = max(self.most, len(steps))
            return demos.cameras["top"][steps]

    asked = Asked()
    store.write(tmp_path / "demo.zarr", replace(demos, cameras={**demos.cameras, "top": asked}))
    assert asked.most == 10


def test_a_cache_holds_what_fits_and_files_stay_few(folder: Path, demos: Demonstrations) -> None:
    chunk = 10 * 24 * 32 * 3
    frames = store.read(folder, cache_bytes=2 * 3 * chunk).cameras["top"]
    frames[np.arange(len(demos.action))]
    assert isinstance(frames, StoredFrames)
    assert len(frames._decoded) == 3
    assert len(frames._open) <= OPEN


def test_a_reader_works_in_other_processes_sent_or_inherited(folder: Path, demos: Demonstrations) -> None:
    frames, steps = store.read(folder).cameras["top"], np.array([0, 99, 200])
    frames[steps]
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:  # which sends the reader
        for found in pool.map(frames.__getitem__, [steps] * 4):
            assert np.array_equal(found, demos.cameras["top"][steps])

    def work() -> None:
        assert np.array_equal(frames[steps], demos.cameras["top"][steps])

    with frames._lock:  # as another thread may hold it at the moment of a fork
        process = context.Process(target=work)
        process.start()
    process.join(30)
    assert process.exitcode == 0


def test_threads_do_not_disturb_each_other(folder: Path, demos: Demonstrations) -> None:
    frames, failed = store.read(folder, cache_bytes=1).cameras["top"], list[int]()

    def work(seed: int) -> None:
        steps = np.random.default_rng(seed).integers(len(demos.action), size=200)
        if not np.array_equal(frames[steps], demos.cameras["top"][steps]):
            failed.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_flipped_bit_is_found_where_it_is_touched(folder: Path) -> None:
    path = folder / "data/camera/top/c.1.0.0.0"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = store.read(folder)  # numbers and the other shards are whole
    found.cameras["top"][np.arange(50)]
    with pytest.raises(StoreError, match=r"top/c\.1\.0\.0\.0: damaged.*sha256 is not the one in the manifest"):
        found.cameras["top"][np.array([50])]
    with pytest.raises(StoreError, match=r"top/c\.1\.0\.0\.0: damaged"):
        store.verify(folder)


def test_a_store_that_is_replaced_while_it_is_read_is_never_mixed(
    folder: Path, tmp_path: Path, demos: Demonstrations
) -> None:
    found = store.read(folder)
    frames = found.cameras["top"]
    first = frames[np.array([0])]
    store.write(folder, replace(demos, cameras={**demos.cameras, "top": 255 - np.asarray(demos.cameras["top"])}))
    assert np.array_equal(frames[np.array([0])], first)  # what is open stays
    with pytest.raises(StoreError, match="replaced while it was read"):
        frames[np.array([60])]
    for shard in files(folder):
        (folder / "data/camera/top" / shard).unlink()
    with pytest.raises(StoreError, match="replaced or removed while it was read; run it again"):
        frames[np.array([120])]


def _forge(change: Callable[[bytes, Shards], bytes]) -> Callable[[Path], None]:
    """Return a function that changes the first shard and signs, as a forger would."""

    def forged(folder: Path) -> None:
        path = folder / FIRST
        path.write_bytes(change(path.read_bytes(), Shards.of(TOP, 250)))
        sign(folder)

    return forged


def _table(content: bytes, layout: Shards, change: Callable[[np.ndarray], object]) -> bytes:
    """Return a shard with another index under a right checksum."""
    table = np.frombuffer(content[-layout.index_bytes : -4], "<u8").reshape(-1, 2).copy()
    change(table)
    index = table.tobytes()
    return content[: -layout.index_bytes] + index + google_crc32c.value(index).to_bytes(4, "little")


def _first_chunk(content: bytes, layout: Shards, body: bytes) -> bytes:
    """Return a shard whose first chunk is another one, under right checksums."""
    table = np.frombuffer(content[-layout.index_bytes : -4], "<u8").reshape(-1, 2)
    rest = content[int(table[1, 0]) : -layout.index_bytes]
    chunk = body + google_crc32c.value(body).to_bytes(4, "little")
    grown = len(chunk) - int(table[0, 1])

    def change(found: np.ndarray) -> None:
        found[0, 1] = len(chunk)
        found[1:, 0] = (found[1:, 0].astype(np.int64) + grown).astype(np.uint64)

    return _table(chunk + rest + content[-layout.index_bytes :], layout, change)


def _gap(table: np.ndarray) -> None:
    table[2] = shards.NOTHING


def _overlap(table: np.ndarray) -> None:
    table[2, 0] -= 1


def _far(table: np.ndarray) -> None:
    table[2, 0] = 2**40


FORGED = {
    "a bomb": (
        _forge(lambda content, layout: _first_chunk(content, layout, compress(bytes(2**26), 3))),
        "expected a chunk of 23040 bytes when decoded, its header says 67108864 bytes",
    ),
    "no size": (
        _forge(lambda content, layout: _first_chunk(content, layout, shards.MAGIC + bytes([0, 0x58]) + bytes(40))),
        "its header says no size",
    ),
    "two frames": (
        _forge(lambda content, layout: _first_chunk(content, layout, 2 * compress(bytes(layout.chunk_bytes), 3))),
        "chunk 0: cannot be decoded",
    ),
    "no zstd": (_forge(lambda content, layout: _first_chunk(content, layout, b"x" * 100)), "its header says no size"),
    "a gap": (_forge(lambda content, layout: _table(content, layout, _gap)), "leaves out a chunk"),
    "an overlap": (_forge(lambda content, layout: _table(content, layout, _overlap)), "one after the other"),
    "beyond the file": (_forge(lambda content, layout: _table(content, layout, _far)), "leaves out a chunk"),
    "an index of zeros": (
        _forge(lambda content, layout: content[: -layout.index_bytes] + bytes(layout.index_bytes)),
        "checksum of the shard's index is wrong",
    ),
    "a chunk with another checksum": (
        _forge(lambda content, layout: content[:10] + bytes([content[10] ^ 1]) + content[11:]),
        "chunk 0: damaged: the checksum of the chunk is wrong",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_shard_is_refused_before_it_is_decoded(folder: Path, name: str) -> None:
    forge, sentence = FORGED[name]
    forge(folder)
    with pytest.raises(StoreError) as caught:
        store.read(folder).cameras["top"][np.arange(50)]
    assert sentence in str(caught.value)
    assert FIRST in str(caught.value)


DOCUMENT = "data/camera/top/zarr.json"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a camera less": (
        lambda folder: edit(folder, "zarr.json", lambda d: d["attributes"]["spec"].update(cameras=[])),
        "'top': there are pictures of it, but the spec does not have it",
    ),
    "a camera more": (
        lambda folder: edit(
            folder,
            "zarr.json",
            lambda d: d["attributes"]["spec"]["cameras"].append({"name": "side", "height": 9, "width": 9, "lossy": ""}),
        ),
        "camera 'side': the spec has it, but there are no pictures of it",
    ),
    "another size": (
        lambda folder: edit(folder, "zarr.json", lambda d: d["attributes"]["spec"]["cameras"][0].update(height=25)),
        "camera 'top': expected pictures of shape",
    ),
    "another number": (
        lambda folder: edit(folder, DOCUMENT, lambda d: d["shape"].__setitem__(0, 200)),
        "camera 'top': expected pictures of shape",
    ),
    "schema 2": (
        lambda folder: edit(folder, "zarr.json", lambda d: d["attributes"].update(schema_version=2)),
        "schema_version: expected 3, got 2",
    ),
    "a codec": (
        lambda folder: edit(
            folder,
            DOCUMENT,
            lambda d: d["codecs"][0]["configuration"]["codecs"][1].update(name="numcodecs.pickle"),
        ),
        "codecs: expected",
    ),
    "huge chunks": (
        lambda folder: edit(
            folder,
            DOCUMENT,
            lambda d: (
                d["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(0, 10**6),
                d["codecs"][0]["configuration"]["chunk_shape"].__setitem__(0, 10**6),
            ),
        ),
        "passes the limit of 134217728 bytes per file",
    ),
    "very many steps": (
        lambda folder: edit(folder, DOCUMENT, lambda d: d["shape"].__setitem__(0, 10**15)),
        "camera 'top': expected pictures of shape",
    ),
    "a missing shard": (
        lambda folder: ((folder / FIRST).unlink(), sign(folder)),
        f"{FIRST}: missing; its steps would read as black pictures",
    ),
    "an empty shard": (
        lambda folder: ((folder / FIRST).write_bytes(b""), sign(folder)),
        f"{FIRST}: expected 85 to",
    ),
    "a huge shard": (
        lambda folder: ((folder / FIRST).write_bytes(bytes(10**6)), sign(folder)),
        "bytes, got 1000000",
    ),
    "a stranger": (
        lambda folder: ((folder / "data/camera/top/c.99.0.0.0").write_bytes(b"x"), sign(folder)),
        "c.99.0.0.0: belongs to no array",
    ),
    "an odd name": (
        lambda folder: (os.rename(folder / "data/camera/top", folder / "data/camera/-top"), sign(folder)),
        "data/camera/-top: a node that schema version 3 does not have",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_store_whose_pictures_do_not_fit_is_refused(folder: Path, name: str) -> None:
    change, sentence = REFUSED[name]
    change(folder)
    assert sentence in refused(folder)


@pytest.mark.parametrize("name", ["", "zarr.json", "../top", "a/b", "__top", ".top", "top\n", "ü", "x" * 65, 7])
def test_a_name_of_a_camera_that_is_no_folders_name_is_refused(tmp_path: Path, name: Any) -> None:
    demos = pictured(1, cameras=(Camera(name, 8, 8),))
    with pytest.raises(StoreError, match="expected a name of 1 to 64 letters, digits, - and _"):
        store.write(tmp_path / "demo.zarr", demos)


@pytest.mark.parametrize(
    ("cameras", "sentence"),
    [
        ((Camera("top", 8, 8), Camera("Top", 8, 8)), "a second camera of this name"),
        ((Camera("top", 0, 8),), "height: expected 1 to 4096 px, got 0"),
        ((Camera("top", 8, 4097),), "width: expected 1 to 4096 px, got 4097"),
        ((Camera("top", 8, 8, lossy=7),), "lossy: expected a text"),  # type: ignore[arg-type]
    ],
)
def test_a_camera_that_cannot_be_is_refused(tmp_path: Path, cameras: tuple[Camera, ...], sentence: str) -> None:
    demos = synthetic(1)
    with pytest.raises(StoreError, match=sentence):
        store.write(tmp_path / "demo.zarr", replace(demos, spec=replace(demos.spec, cameras=cameras)))


def test_pictures_of_another_kind_are_not_written(tmp_path: Path, demos: Demonstrations) -> None:
    top = np.asarray(demos.cameras["top"])
    for pictures, sentence in (
        (
            top.astype(np.float32),
            "steps 0 to 9: expected pictures of shape .* of uint8, got .* of float32",
        ),
        (top[:, :12], "expected pictures of shape"),
        (top[:-1], "one per step"),
    ):
        with pytest.raises(StoreError, match=sentence):
            store.write(tmp_path / "demo.zarr", replace(demos, cameras={**demos.cameras, "top": pictures}))
    with pytest.raises(StoreError, match="camera 'top': the spec has it, but there are no pictures"):
        store.write(tmp_path / "demo.zarr", replace(demos, cameras={}))
    assert not (tmp_path / "demo.zarr").exists()


def test_pictures_do_not_count_as_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = sum(map(len, files(folder).values()))
    numbers = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and "camera" not in str(path))
    monkeypatch.setattr(schema, "MAX_STORE_BYTES", numbers + pictures // 2)
    assert store.read(folder).cameras
