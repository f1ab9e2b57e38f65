"""Damaged, foreign and malicious stores: each is refused with the file named, before its arrays are decoded."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.synthetic import synthetic
from vqbet.contract import StoreError
from vqbet.demos import store
from vqbet.demos.store import inspection, manifest, schema
from vqbet.demos.store.manifest import Manifest
from vqbet.files.manifest import Fingerprint

EPISODES = 40


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good store of two shards per array."""
    path = tmp_path_factory.mktemp("good") / "demo.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "CHUNK_ROWS", 512)
        patch.setattr(schema, "SHARD_CHUNKS", 2)
        store.write(path, synthetic(EPISODES))
    return path


@pytest.fixture
def folder(tmp_path: Path, good: Path) -> Path:
    """A copy of the good store, to be damaged."""
    return Path(shutil.copytree(good, tmp_path / "demo.zarr"))


def sign(folder: Path) -> None:
    """Write the manifest that fits what is in the folder now, as a forger would."""
    (folder / "manifest.json").unlink()
    files = [path for path in folder.rglob("*") if path.is_file()]
    entries = {str(path.relative_to(folder)): Fingerprint.of(path.read_bytes()) for path in files}
    (folder / "manifest.json").write_bytes(Manifest(entries).encode())


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON document and sign."""
    path = folder / name
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    sign(folder)


def refused(folder: Path) -> str:
    """The sentence with which the store is refused."""
    with pytest.raises(StoreError) as caught:
        store.read(folder)
    return str(caught.value)


def test_the_good_store_is_read(folder: Path) -> None:
    sign(folder)
    assert len(store.read(folder).episode_ends) == EPISODES


@pytest.mark.slow
def test_a_flipped_bit_anywhere_names_the_file(folder: Path) -> None:
    random = np.random.default_rng(0)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        intact = path.read_bytes()
        for bit in random.integers(8 * len(intact), size=4):
            damaged = bytearray(intact)
            damaged[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(damaged)
            assert str(path.relative_to(folder)) in refused(folder)
        path.write_bytes(intact)
    store.read(folder)


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_truncated_file_is_named(folder: Path, keep: int) -> None:
    for name in ("data/action/c/1/0", "meta/session/c/0", "zarr.json", "manifest.json"):
        intact = (folder / name).read_bytes()
        (folder / name).write_bytes(intact[: min(keep, len(intact) - 1)])
        assert name in refused(folder)
        (folder / name).write_bytes(intact)


def test_a_missing_file_is_named(folder: Path) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.unlink()
        assert str(path.relative_to(folder)) in refused(folder)
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["data/action/c/1/0", "meta/success/c/0", "meta/episode_ends/c/0"])
def test_a_chunk_left_out_on_purpose_does_not_read_as_fill_values(folder: Path, name: str) -> None:
    (folder / name).unlink()
    sign(folder)
    assert f"{name}: missing" in refused(folder)


def test_a_chunk_left_out_of_a_shard_does_not_read_as_fill_values(folder: Path) -> None:
    from google_crc32c import value

    path = folder / "data/observation/c/0/0"
    content = bytearray(path.read_bytes())
    index = content[-36:-4]
    index[16:32] = b"\xff" * 16  # how Zarr marks a chunk that is not there
    path.write_bytes(content[:-36] + index + value(bytes(index)).to_bytes(4, "little"))
    sign(folder)
    assert "data/observation/c/0/0: the index of the shard leaves out a chunk" in refused(folder)


def test_a_signed_shard_whose_checksum_is_wrong_is_refused(folder: Path) -> None:
    path = folder / "data/observation/c/0/0"
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    sign(folder)
    assert "data/observation: cannot be decoded: Stored and computed checksum do not match" in refused(folder)


def test_texts_that_claim_to_be_more_than_they_are(folder: Path) -> None:
    path = folder / "meta/operator/c/0"
    path.write_bytes(b"\xff\xff\xff\xff" + path.read_bytes()[4:])
    sign(folder)
    assert f"meta/operator/c/0: expected {EPISODES} texts, got 4294967295" in refused(folder)


def test_an_extra_file_is_named(folder: Path) -> None:
    (folder / "data" / "notes.txt").write_text("hello")
    assert "data/notes.txt: a file that manifest.json does not list" in refused(folder)
    sign(folder)
    assert "data/notes.txt: belongs to no array" in refused(folder)


@pytest.mark.parametrize("name", ["data/action/c/0/0", "data/action/c", "meta", "manifest.json"])
def test_a_symbolic_link_is_refused_where_it_is(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")
    assert f"{name}: expected a plain file, got a link or a device" in refused(folder)


def test_a_store_behind_a_symbolic_link_is_refused(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")
    for work in (store.read, store.digest):
        with pytest.raises(StoreError, match="a symbolic link; a store must be a folder of its own"):
            work(folder)


def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    (folder / "meta/seed/c/0").unlink()
    os.mkfifo(folder / "meta/seed/c/0")
    assert "meta/seed/c/0: expected a plain file" in refused(folder)


def test_what_is_no_store_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file.zarr").write_text("hello")
    (tmp_path / "empty.zarr").mkdir()
    (tmp_path / "two.zarr").mkdir()
    (tmp_path / "two.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    sentences = {
        "nothing.zarr": "no demonstrations here; make them or ingest them first",
        "file.zarr": "expected a folder, got a file",
        "file.zarr/inside": "no demonstrations here",
        "empty.zarr": "no manifest.json, so not a store of ours; import it with `vqbet ingest`",
        "two.zarr": "a Zarr v2 store; import it with `vqbet ingest`",
        "n" * 300: "cannot be read: File name too long",
    }
    for name, sentence in sentences.items():
        for work in (store.read, store.digest):
            with pytest.raises(StoreError) as caught:
                work(tmp_path / name)
            assert str(caught.value).startswith(f"{tmp_path / name}: {sentence}")


def test_the_published_push_t_data_is_a_zarr_v2_store(real_demos: Callable[[str], Path]) -> None:
    with pytest.raises(StoreError, match="a Zarr v2 store; import it with `vqbet ingest`"):
        store.read(real_demos("pusht") / "pusht_cchi_v7_replay.zarr")


MANIFESTS: dict[str, bytes] = {
    "no JSON": b"\x80\x04",
    "deeply nested": b"[" * 200_000,
    "a list": b"[]",
    "another object": b"{}",
    "files as a list": b'{"files": []}',
    "a size as text": b'{"files": {"a": {"bytes": "1", "sha256": "x"}}}',
    "a size that is true": b'{"files": {"a": {"bytes": true, "sha256": "x"}}}',
    "a hash of itself that is wrong": Manifest({}).encode().replace(b'"sha256": "', b'"sha256": "0'),
    "escaping": Manifest({"../../etc/passwd": Fingerprint(1, "x")}).encode(),
    "too long": b" " * (schema.MAX_DOCUMENT_BYTES + 1),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_that_is_none_is_refused(folder: Path, case: str) -> None:
    (folder / "manifest.json").write_bytes(MANIFESTS[case])
    assert ("passwd" if case == "escaping" else "manifest.json") in refused(folder)


def sharding(document: dict[str, Any]) -> dict[str, Any]:
    return document["codecs"][0]["configuration"]


OBSERVATION = "data/observation/zarr.json"
DOCUMENTS: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "an object dtype": (OBSERVATION, lambda d: d.update(data_type="object"), "data_type: expected 'float32'"),
    "an extension dtype": (OBSERVATION, lambda d: d.update(data_type={"name": "pickle"}), "data_type"),
    "a wider dtype": (OBSERVATION, lambda d: d.update(data_type="float64"), "data_type"),
    "texts of fixed length": ("meta/task/zarr.json", lambda d: d.update(data_type="fixed_length_utf32"), "data_type"),
    "a codec that runs code": (OBSERVATION, lambda d: sharding(d)["codecs"].append({"name": "pickle"}), "codecs"),
    "a codec that grows": (OBSERVATION, lambda d: sharding(d)["codecs"].insert(1, {"name": "zstd"}), "codecs"),
    "no checksum": (OBSERVATION, lambda d: sharding(d)["codecs"].pop(), "codecs"),
    "no checksum of the index": (OBSERVATION, lambda d: sharding(d)["index_codecs"].pop(), "codecs"),
    "no codec": (OBSERVATION, lambda d: d.update(codecs=[]), "codecs"),
    "codecs of another kind": (OBSERVATION, lambda d: d.update(codecs=7), "codecs"),
    "another endianness": ("meta/seed/zarr.json", lambda d: d["codecs"][0]["configuration"].update(endian="big"), "co"),
    "Zarr v2": (OBSERVATION, lambda d: d.update(zarr_format=2), "zarr_format: expected 3, got 2"),
    "a group for an array": (OBSERVATION, lambda d: d.update(node_type="group"), "node_type"),
    "an array for a group": ("data/zarr.json", lambda d: d.update(node_type="array"), "node_type"),
    "10^12 rows": (OBSERVATION, lambda d: d.update(shape=[10**12, 4]), "expected 1000000000000 rows"),
    "negative rows": (OBSERVATION, lambda d: d.update(shape=[-5, 4]), "shape: expected 2 positive whole numbers"),
    "rows as a fraction": (OBSERVATION, lambda d: d.update(shape=[1.5, 4]), "shape: expected 2 positive"),
    "rows as true": (OBSERVATION, lambda d: d.update(shape=[True, 4]), "shape: expected 2 positive"),
    "one axis": (OBSERVATION, lambda d: d.update(shape=[5]), "shape: expected 2 positive"),
    "no shape": (OBSERVATION, lambda d: d.pop("shape"), "shape: expected 2 positive"),
    "another fill value": (OBSERVATION, lambda d: d.update(fill_value=0.0), "fill_value: expected 'NaN', got 0.0"),
    "a transformer": (OBSERVATION, lambda d: d.update(storage_transformers=[{"name": "x"}]), "storage_transformers"),
    "an unknown key": (OBSERVATION, lambda d: d.update(must_understand="x"), "must_understand: not part"),
    "other chunk keys": (OBSERVATION, lambda d: d.update(chunk_key_encoding={"name": "v2"}), "chunk_key_encoding"),
    "a chunk grid of text": (OBSERVATION, lambda d: d.update(chunk_grid="regular"), "chunk_grid: expected 2 positive"),
    "chunks of 512 MB": (
        OBSERVATION,
        lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[512 * 2**16, 4]),
        "passes the limit of 134217728 bytes",
    ),
    "chunks that do not fill shards": (OBSERVATION, lambda d: sharding(d).update(chunk_shape=[500, 4]), "do not fill"),
    "chunks of part of a row": (OBSERVATION, lambda d: sharding(d).update(chunk_shape=[512, 2]), "codecs: expected"),
    "fewer rows": ("data/action/zarr.json", lambda d: d["shape"].__setitem__(0, 1025), "rows as data/observation has"),
    "fewer episodes": (
        "meta/seed/zarr.json",
        lambda d: (d.update(shape=[39]), d["chunk_grid"]["configuration"].update(chunk_shape=[39])),
        "meta/seed: expected 40 rows as meta/episode_ends has, got 39",
    ),
    "many chunks for columns": (
        "meta/seed/zarr.json",
        lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[1]),
        "do not fill shards",
    ),
    "no spec": ("zarr.json", lambda d: d.update(attributes={}), "zarr.json: no spec in the attributes"),
    "attributes as a list": ("zarr.json", lambda d: d.update(attributes=[]), "zarr.json: no spec"),
    "another schema": ("zarr.json", lambda d: d["attributes"].update(schema_version=2), "schema_version: expected 1"),
    "no schema": ("zarr.json", lambda d: d["attributes"].update(schema_version=None), "schema_version: expected 1"),
    "a spec of text": ("zarr.json", lambda d: d["attributes"].update(spec="x"), "spec: expected the keys of a spec"),
    "a spec with a new key": ("zarr.json", lambda d: d["attributes"]["spec"].update(robot="x"), "robot"),
    "a spec without a rate": ("zarr.json", lambda d: d["attributes"]["spec"].pop("control_hz"), "control_hz"),
    "a spec with a limit of text": (
        "zarr.json",
        lambda d: d["attributes"]["spec"]["action"][1].update(low="-inf"),
        r"spec: action[1].low: expected a finite number, got '-inf'",
    ),
    "a spec of more channels": (
        "zarr.json",
        lambda d: d["attributes"]["spec"]["observation"].append(d["attributes"]["spec"]["observation"][0]),
        "data/observation: expected 5 channels as in spec, got 4",
    ),
    "consolidated metadata": ("zarr.json", lambda d: d.update(consolidated_metadata={"x": 1}), "consolidated_metadata"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_metadata_that_asks_for_anything_else_is_refused(
    folder: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, change, sentence = DOCUMENTS[case]
    edit(folder, name, change)
    monkeypatch.setattr(store, "_decode", lambda *arguments: pytest.fail("decoded before it was refused"))
    start = time.process_time()
    found = refused(folder)
    assert time.process_time() - start < 5
    assert sentence in found
    assert str(folder) in found


def test_arrays_that_the_schema_does_not_know_or_must_have(folder: Path) -> None:
    (folder / "data" / "img").mkdir()
    (folder / "data" / "img" / "zarr.json").write_bytes((folder / OBSERVATION).read_bytes())
    sign(folder)
    assert "data/img: a node that schema version 3 does not have" in refused(folder)
    (folder / "data" / "img" / "zarr.json").unlink()
    (folder / "data" / "time_s" / "zarr.json").unlink()
    sign(folder)
    assert "data/time_s/zarr.json: missing" in refused(folder)


def test_a_store_without_state_is_read(folder: Path) -> None:
    for path in [path for path in (folder / "data/state").rglob("*") if path.is_file()]:
        path.unlink()
    sign(folder)
    assert store.read(folder).state is None


ENDS: dict[str, tuple[int, int, str]] = {
    "falling": (7, 3, "meta/episode_ends: episode 7 ends at step 3, which is not after its start at"),
    "unwritten": (0, -1, "episode 0 ends at step -1, which is not after its start at 0"),
    "incomplete": (EPISODES - 1, 10**6, f"the last episode, {EPISODES - 1}, ends at step 1000000, but the arrays hold"),
}


@pytest.mark.parametrize("case", ENDS)
def test_ends_that_do_not_cut_the_steps_name_the_episode(folder: Path, case: str) -> None:
    import zarr

    episode, end, sentence = ENDS[case]
    zarr.open_array(folder / schema.ENDS, mode="r+")[episode] = end
    sign(folder)
    assert sentence in refused(folder)


def test_a_column_of_huge_texts_is_refused(folder: Path) -> None:
    import zarr

    column = zarr.open_array(folder / "meta/source", mode="r+")
    column[3] = "x" * 100_000
    sign(folder)
    assert "meta/source: episode 3: expected a text of at most 256 characters" in refused(folder)


def test_a_huge_store_is_refused_by_its_sizes_alone(folder: Path) -> None:
    path = folder / "data/action/c/0/0"
    os.truncate(path, 5 * 2**30)  # a sparse file: it takes no room
    listing = manifest.read(folder)
    forged = Manifest({**listing.files, "data/action/c/0/0": Fingerprint(5 * 2**30, "0" * 64)})
    (folder / "manifest.json").write_bytes(forged.encode())
    assert "are more than the 4294967296 that are read into memory" in refused(folder)


def test_a_store_of_very_many_files_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_FILES", 50)
    assert "more than 50 files" in refused(folder)


def test_more_arrays_than_memory_and_more_episodes_than_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MAX_STORE_BYTES", 10_000)
    assert "are more than the 10000 that are read into memory; where there is room for more" in refused(folder)
    monkeypatch.setattr(schema, "MAX_STORE_BYTES", 4 * 2**30)
    monkeypatch.setenv("VQBET_STORE_GIB", "0.0001")
    assert "are more than the 107374 that are read into memory" in refused(folder)
    monkeypatch.setenv("VQBET_STORE_GIB", "much")
    assert "VQBET_STORE_GIB: expected the GiB of a store that memory has room for, such as 4, got 'much'" in refused(
        folder
    )
    monkeypatch.setenv("VQBET_STORE_GIB", "1")
    monkeypatch.setattr(schema, "MAX_EPISODES", EPISODES - 1)
    assert f"meta/episode_ends: {EPISODES} episodes, more than {EPISODES - 1}" in refused(folder)


def test_metadata_of_many_megabytes_is_refused(folder: Path) -> None:
    edit(folder, "meta/zarr.json", lambda document: document.update(attributes={"x": "y" * schema.MAX_DOCUMENT_BYTES}))
    assert "meta/zarr.json: more than 4194304 bytes of metadata" in refused(folder)


def test_the_digest_of_a_damaged_manifest_is_refused(folder: Path) -> None:
    content = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(content.replace(b"a", b"b", 1))
    with pytest.raises(StoreError, match=r"manifest\.json"):
        store.digest(folder)


def test_every_dtype_has_one_allowed_list_of_codecs() -> None:
    assert set(inspection.SERIALIZERS) == set(schema.FILL) == set(schema.ARRAYS.values())
