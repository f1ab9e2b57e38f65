"""Replay buffers of Zarr v2 and v3, in folders and zips, are read as zarr reads them; broken ones end in a sentence."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.support import foreign_sets
from tests.support.foreign_sets import LENGTHS, made, rewrite
from vqbet.contract import StoreError
from vqbet.demos.sources import opened
from vqbet.demos.sources.packed import inflated

Fault = Callable[[Path], object]
KINDS = ["v2", "v3", "v3 shards", "v2 zip", "v3 zip", "v2 zip of a folder"]


def write(root: Path, kind: str, pictures: str = "float32") -> Path:
    number = 2 if kind.startswith("v2") else 3
    folder = foreign_sets.replay_buffer(root / "set.zarr", number, pictures=pictures, shards="shards" in kind)
    if "zip" in kind:
        return foreign_sets.zipped(root if "folder" in kind else folder, root.parent / "set.zarr.zip")
    return folder


@pytest.mark.parametrize("pictures", ["float32", "uint8"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_good_buffer_is_read(tmp_path: Path, kind: str, pictures: str) -> None:
    source = opened(write(tmp_path / "made", kind, pictures))
    assert (source.format, source.rate_hz, source.notes) == ("replay_buffer", None, ())
    assert [one.steps for one in source.episodes] == list(LENGTHS)
    assert {name: field.kind for name, field in source.fields.items()} == {
        "action": "numbers",
        "state": "numbers",
        "img": "pictures",
    }
    for episode, one in enumerate(made()):
        assert source.time_s(episode) is None
        assert np.array_equal(source.numbers(episode, "state"), one.state)
        frames = np.stack(list(source.frames(episode, "img")))
        assert frames.dtype == np.uint8
        assert np.array_equal(frames, one.pictures)
        assert next(iter(source.frames(episode, "img", (8, 16)))).shape == (8, 16, 3)
    assert all(path.is_file() for path in source.files())


@pytest.mark.parametrize("codec", ["zlib", "gzip", "lz4", "zstd", None])
def test_other_codecs_are_read(tmp_path: Path, codec: str | None) -> None:
    import numcodecs

    root = foreign_sets.replay_buffer(tmp_path / "set.zarr")
    shutil.rmtree(root / "data/state")
    state = np.concatenate([one.state for one in made()])
    packing = numcodecs.get_codec({"id": codec}) if codec else None
    array = zarr.open_group(root, mode="r+", zarr_format=2).create_array(
        "data/state", shape=state.shape, chunks=(7, 2), dtype="f4", compressors=packing
    )
    array[:] = state
    source = opened(root)
    assert np.array_equal(source.numbers(1, "state"), made()[1].state)


@pytest.mark.parametrize("codec", [zarr.codecs.GzipCodec(), zarr.codecs.BloscCodec(), zarr.codecs.ZstdCodec()])
@pytest.mark.parametrize("summed", [False, True])
def test_other_codecs_of_version_3_are_read(tmp_path: Path, codec: Any, summed: bool) -> None:
    root = foreign_sets.replay_buffer(tmp_path / "set.zarr", 3)
    shutil.rmtree(root / "data/state")
    state = np.concatenate([one.state for one in made()])
    array = zarr.open_group(root, mode="r+").create_array(
        "data/state",
        shape=state.shape,
        chunks=(7, 2),
        dtype="f4",
        compressors=[codec, zarr.codecs.Crc32cCodec()] if summed else [codec],
    )
    array[:] = state
    assert np.array_equal(opened(root).numbers(2, "state"), made()[2].state)


def test_the_published_pictures_are_read_as_zarr_reads_them(real_demos: Callable[[str], Path]) -> None:
    root = real_demos("pusht") / "pusht_cchi_v7_replay.zarr"
    source, group = opened(root), zarr.open_group(root, mode="r", zarr_format=2)
    assert (len(source.episodes), sum(one.steps for one in source.episodes)) == (206, 25650)
    assert (source.fields["img"].kind, source.fields["img"].shape) == ("pictures", (96, 96, 3))
    ends: Any = group["meta/episode_ends"]
    for episode in (0, 100, 205):
        start, stop = int(ends[episode - 1]) if episode else 0, int(ends[episode])
        for name in ("state", "action", "keypoint"):
            array: Any = group[f"data/{name}"]
            assert np.array_equal(source.numbers(episode, name), array[start:stop])
    images: Any = group["data/img"]
    assert np.array_equal(np.stack(list(source.frames(205, "img"))), images[start:stop].astype(np.uint8))


def test_one_folder_too_high_names_what_lies_below(tmp_path: Path) -> None:
    write(tmp_path, "v2")
    with pytest.raises(StoreError, match=r"name one of set.zarr \(replay_buffer\)"):
        opened(tmp_path)


def _set(name: str, **changes: object) -> Fault:
    return rewrite(name, lambda value: value.update(changes))


def _cut(name: str, size: int) -> Fault:
    return lambda root: os.truncate(root / name, size)


def _linked(name: str) -> Fault:
    def fault(root: Path) -> None:
        shutil.move(root / name, root.parent / "elsewhere")
        (root / name).symlink_to(root.parent / "elsewhere")

    return fault


def _header(name: str, place: int, content: bytes) -> Fault:
    def fault(root: Path) -> None:
        path = root / name
        whole = bytearray(path.read_bytes())
        whole[place : place + len(content)] = content
        path.write_bytes(whole)

    return fault


def _ends(ends: list[int]) -> Fault:
    def fault(root: Path) -> None:
        group: Any = zarr.open_group(root, mode="r+")
        group["meta/episode_ends"][:] = ends

    return fault


def _half(root: Path) -> None:
    group: Any = zarr.open_group(root, mode="r+")
    group["data/img"][14] = 0.5


def _gzip_bomb(root: Path) -> None:
    import gzip

    _set("data/state/.zarray", compressor={"id": "gzip", "level": 1})(root)
    for number in range(4):
        (root / f"data/state/{number}.0").write_bytes(gzip.compress(bytes(2**20)))


V2: dict[str, tuple[Fault, str]] = {
    "no ends": (
        lambda root: shutil.rmtree(root / "meta"),
        r"expected one replay buffer, .*meta/episode_ends, found none",
    ),
    "no data": (lambda root: shutil.rmtree(root / "data"), r"data: expected arrays"),
    "ends fall": (_ends([12, 10, 34]), r"meta/episode_ends: episode 1 ends at step 10, but starts at step 12"),
    "ends too short": (
        _ends([12, 19, 33]),
        r"action/.zarray: action: the last episode ends at step 33, but there are 34",
    ),
    "ends of floats": (_set("meta/episode_ends/.zarray", dtype="<f8"), r"meta/episode_ends: expected whole numbers"),
    "missing chunk": (
        lambda root: (root / "data/state/1.0").unlink(),
        r"state/1.0: .*step 10: the chunk is missing.*episode 0",
    ),
    "cut chunk": (_cut("data/state/1.0", 30), r"data/state/1.0: data/state, from step 10: the chunk is"),
    "blosc bomb": (_header("data/img/1.0.0.0", 4, b"\0\0\0\x20"), r"img/1.0.0.0: .*unpacks to 536870912 bytes"),
    "gzip bomb": (_gzip_bomb, r"data/state/0.0: .*: the chunk unpacks to \d+ bytes, its metadata says 120"),
    "scrambled chunk": (_header("data/img/0.0.0.0", 24, b"\xff" * 40), r"data/img: cannot be decoded"),
    "linked chunk": (_linked("data/state/0.0"), r"data/state/0.0: is a symbolic link"),
    "linked array": (_linked("data/state"), r"data/state: is a symbolic link"),
    "objects": (_set("data/state/.zarray", dtype="|O"), r"state/.zarray: data/state: dtype: .*'\|O'; objects"),
    "structures": (_set("data/state/.zarray", dtype=[["x", "<f4"]]), r"data/state: dtype: "),
    "big end first": (_set("data/state/.zarray", dtype=">f4"), r"data/state: dtype: .*'>f4'"),
    "filters": (_set("data/state/.zarray", filters=[{"id": "pickle"}]), r"data/state: filters: expected None"),
    "pictures of UMI": (
        _set("data/img/.zarray", compressor={"id": "imagecodecs_jpegxl"}),
        r"img/.zarray: data/img: compressor: .*'imagecodecs_jpegxl'; the package imagecodecs decodes it.*pip install",
    ),
    "codec of nobody": (_set("data/img/.zarray", compressor={"id": "pickle"}), r"data/img: compressor: .*'pickle'"),
    "a trillion rows": (
        _set("data/state/.zarray", shape=[10**12, 3]),
        r"state/.zarray: state: .* there are 1000000000000 steps",
    ),
    "more rows than the ends": (_set("data/state/.zarray", shape=[35, 3]), r"state: the last episode ends .* 35 steps"),
    "huge chunks": (_set("data/state/.zarray", chunks=[10**9, 3]), r"data/state: a chunk has 12000000000 bytes"),
    "negative shape": (_set("data/state/.zarray", shape=[-1, 3]), r"data/state: shape: expected a list of positive"),
    "chunks of another rank": (_set("data/state/.zarray", chunks=[10]), r"data/state: chunks: expected 2 dimensions"),
    "columns first": (_set("data/state/.zarray", order="F"), r"data/state: order: expected 'C', got 'F'"),
    "no JSON": (lambda root: (root / "data/state/.zarray").write_text("{"), r"state/.zarray: is not readable JSON"),
    "long JSON": (lambda root: (root / "data/state/.zarray").write_text(" " * 70_000), r"70000 bytes of metadata"),
    "pictures of halves": (_half, r"data/img: episode 1: img: step 2: expected whole numbers from 0 to 255, got 0.5"),
}


def _codecs(*codecs: object) -> Fault:
    return _set("data/state/zarr.json", codecs=list(codecs))


LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
V3: dict[str, tuple[Fault, str]] = {
    "missing chunk": (
        lambda root: (root / "data/state/c/1/0").unlink(),
        r"state/c/1/0: .*step 10: the chunk is missing",
    ),
    "cut chunk": (_cut("data/state/c/0/0", 4), r"data/state/c/0/0: .*the chunk is damaged"),
    "zstd bomb": (
        _header("data/img/c/1/0/0/0", 4, b"\xa0\0\0\0\x20"),
        r"img/c/1/0/0/0: .*: the chunk unpacks to 536870912",
    ),
    "scrambled chunk": (_header("data/img/c/0/0/0/0", 9, b"\xff" * 40), r"data/img: cannot be decoded"),
    "texts": (_set("data/state/zarr.json", data_type="string"), r"state/zarr.json: data/state: dtype: .*'string'"),
    "codec of nobody": (_codecs(LITTLE, {"name": "pickle"}), r"data/state: codecs: .*'pickle'"),
    "turned around": (
        _codecs({"name": "transpose", "configuration": {"order": [1, 0]}}, LITTLE),
        r"codecs: .*'transpose'",
    ),
    "big end first": (_codecs({"name": "bytes", "configuration": {"endian": "big"}}), r"data/state: codecs: .*little"),
    "no codecs": (_codecs(), r"data/state: codecs: expected"),
    "no grid": (
        rewrite("data/state/zarr.json", lambda value: value.pop("chunk_grid") and None),
        r"'chunk_grid' is missing",
    ),
    "linked chunk": (_linked("data/state/c/0/0"), r"data/state/c/0/0: is a symbolic link"),
    "a trillion rows": (_set("data/state/zarr.json", shape=[10**13, 3]), r"data/state: the array has \d+ bytes"),
}
SHARDS: dict[str, tuple[Fault, str]] = {
    "cut shard": (_cut("data/state/c/0/0", 20), r"data/state/c/0/0: .*the shard is cut off: 20 bytes"),
    "shard without its index": (_cut("data/state/c/0/0", 100), r"data/state/c/0/0: .*chunk 0 of the shard"),
    "chunk missing in the shard": (
        _header("data/state/c/1/0", -36, b"\xff" * 16),
        r"state/c/1/0: .*chunk 0 of the shard.*missing",
    ),
}


def _zip_link(root: Path) -> Path:
    (root / "data/state/0.0").unlink()
    path = foreign_sets.zipped(root, root.parent / "set.zip")
    member = zipfile.ZipInfo("data/state/0.0")
    member.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, "/etc/passwd")
    return path


def _cut_zip(root: Path) -> Path:
    path = foreign_sets.zipped(root, root.parent / "set.zip")
    os.truncate(path, path.stat().st_size // 2)
    return path


def _damaged_zip(root: Path) -> Path:
    path = foreign_sets.zipped(root, root.parent / "set.zip")
    content = path.read_bytes()
    place = content.index(b"data/state/0.0") + len("data/state/0.0") + 20
    path.write_bytes(content[:place] + bytes(8) + content[place + 8 :])
    return path


def _zip_without(root: Path) -> Path:
    (root / "data/action/0.0").unlink()
    return foreign_sets.zipped(root, root.parent / "set.zip")


ZIPS: dict[str, tuple[Fault, str]] = {
    "link in the zip": (_zip_link, r"set.zip/data/state/0.0: .*is a link, encrypted or outside"),
    "cut zip": (_cut_zip, r"set.zip: holds no demonstrations"),
    "damaged member": (_damaged_zip, r"set.zip/data/state/0.0: "),
    "missing chunk": (_zip_without, r"set.zip/data/action/0.0: .*the chunk is missing"),
}
MUTANTS = [
    pytest.param(kind, *table[fault], id=f"{name}: {fault}")
    for name, kind, table in (("v2", "v2", V2), ("v3", "v3", V3), ("shards", "v3 shards", SHARDS), ("zip", "v2", ZIPS))
    for fault in table
]


@pytest.mark.parametrize(("kind", "fault", "sentence"), MUTANTS)
def test_a_broken_buffer_ends_in_a_sentence(tmp_path: Path, kind: str, fault: Fault, sentence: str) -> None:
    root = write(tmp_path / "made", kind)
    changed = fault(root)
    with pytest.raises(StoreError, match=sentence) as caught:
        foreign_sets.read_all(opened(changed if isinstance(changed, Path) else root))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900


def test_a_field_that_cannot_be_decoded_leaves_the_others(tmp_path: Path) -> None:
    root = write(tmp_path, "v2")
    _set("data/img/.zarray", compressor={"id": "imagecodecs_jpegxl"})(root)
    source = opened(root)
    assert np.array_equal(source.numbers(0, "state"), made()[0].state)
    assert "imagecodecs" in source.notes[0]


def test_a_missing_chunk_is_said_before_it_is_read(tmp_path: Path) -> None:
    root = write(tmp_path, "v2")
    (root / "data/img/2.0.0.0").unlink()
    assert opened(root).notes == ("img has no chunk 2.0.0.0, which Zarr would read as zeros",)


def test_what_a_stream_unpacks_to_is_counted_up_to_a_limit() -> None:
    import gzip

    assert inflated(gzip.compress(bytes(5000)) + gzip.compress(bytes(70)), 31, 10_000) == 5070
    assert inflated(gzip.compress(bytes(2**25)), 31, 10_000) < 2**21
