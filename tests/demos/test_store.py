"""The store: what is written is what is read, in equal bytes, also where the disk or another writer says no."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import up_to
from tests.support.synthetic import synthetic, synthetic_spec
from vqbet.contract import COLUMNS, Channel, Demonstrations, StoreError
from vqbet.demos import store
from vqbet.demos.store import inspection, manifest, schema
from vqbet.files import atomic

GOLDEN_RECORDED = "eba2839375ba60755c75baf7e8ee7707b62d30ea5d84deb2f7a9c761bbaf4316"
GOLDEN_DIGEST = "70ee1cad10bb05f97953a04496a0852a397f833ba696389240be35e0debe6f9c"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk: a process that dies loses nothing that it gave to the kernel."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_equal(found: Demonstrations, wanted: Demonstrations) -> None:
    """Equal to the bit, NaNs included."""
    assert found.spec == wanted.spec
    one, two = schema.arrays(found), schema.arrays(wanted)
    assert list(one) == list(two)
    for name, array in one.items():
        assert array.shape == two[name].shape, name
        if schema.ARRAYS[name] == "string":
            assert array.tolist() == two[name].tolist(), name
        else:
            assert array.dtype == two[name].dtype, name
            assert array.tobytes() == two[name].tobytes(), name


def counted(lengths: list[int], D: int = 3, A: int = 2) -> Demonstrations:
    """Demonstrations made of counting numbers: the same on every machine."""
    steps, episodes = sum(lengths), len(lengths)
    return Demonstrations(
        spec=synthetic_spec(D=D, A=A),
        observation=np.arange(steps * D, dtype=np.float32).reshape(steps, D),
        action=-np.arange(steps * A, dtype=np.float32).reshape(steps, A),
        time_s=np.arange(steps) / 8,
        episode_ends=np.cumsum(lengths, dtype=np.int64),
        columns={
            **{name: np.array([f"{name} {episode}" for episode in range(episodes)], dtype=np.str_) for name in COLUMNS},
            "seed": np.arange(episodes) - 1,
            "success": np.arange(episodes) % 2 == 0,
        },
        state=np.arange(steps * 4, dtype=np.float64).reshape(steps, 4),
    )


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
floats = st.sampled_from([0.0, -0.0, 1.5, -3e38, math.nan, math.inf, 1e-45])


@pytest.mark.slow
@up_to(15)
@given(data=st.data(), lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), stateful=st.booleans())
def test_what_is_written_is_what_is_read(
    tmp_path: Path, data: st.DataObject, lengths: list[int], stateful: bool
) -> None:
    demos = counted(lengths, D=data.draw(st.integers(1, 3)), A=data.draw(st.integers(1, 3)))
    demos.observation[0, 0] = data.draw(floats)
    demos.time_s[-1] = data.draw(floats)
    demos.columns["source"][0] = data.draw(texts)[:8]
    demos = demos if stateful else replace(demos, state=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "CHUNK_ROWS", data.draw(st.integers(1, 6)))
        patch.setattr(schema, "SHARD_CHUNKS", data.draw(st.integers(1, 3)))
        digest = store.write(tmp_path / "demo.zarr", demos)
    found = store.read(tmp_path / "demo.zarr")
    assert_equal(found, demos)
    assert found.digest == digest == store.digest(tmp_path / "demo.zarr")


def test_chunks_that_hold_nothing_but_fill_values_are_kept(tmp_path: Path) -> None:
    demos = counted([3, 4])
    demos.observation[...] = np.nan
    demos.columns["success"][...] = False
    demos.columns["seed"][...] = -1
    demos.columns["source"][...] = ""
    store.write(tmp_path / "demo.zarr", demos)
    assert_equal(store.read(tmp_path / "demo.zarr"), demos)


def test_equal_demonstrations_give_equal_bytes(tmp_path: Path) -> None:
    lines = (
        "from pathlib import Path; from vqbet.demos import store; import sys; "
        "from tests.support.synthetic import synthetic; "
        "store.write(Path(sys.argv[1]), synthetic(60, seed=1))"
    )
    other = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", lines, str(tmp_path / "two.zarr")], check=True, env=other)
    store.write(tmp_path / "one.zarr", synthetic(60, seed=1))
    store.write(tmp_path / "three.zarr", synthetic(60, seed=2))
    assert tree(tmp_path / "one.zarr") == tree(tmp_path / "two.zarr")
    assert store.digest(tmp_path / "one.zarr") != store.digest(tmp_path / "three.zarr")


def test_the_format_has_not_changed(tmp_path: Path) -> None:
    """A store of schema version 1 has these bytes, for good: DVC and the registry name data by them."""
    assert store.write(tmp_path / "demo.zarr", counted([1000, 500, 1])) == GOLDEN_DIGEST
    manifest_bytes = (tmp_path / "demo.zarr" / "manifest.json").read_bytes()
    assert hashlib.sha256(manifest_bytes).hexdigest() == GOLDEN_DIGEST


def test_a_store_with_recordings_is_of_version_2(tmp_path: Path) -> None:
    demos = counted([1000, 500, 1])
    demos = replace(demos, intervention=np.arange(1501) % 3 == 0)
    assert store.write(tmp_path / "demo.zarr", demos) == GOLDEN_RECORDED
    assert_equal(store.read(tmp_path / "demo.zarr"), demos)
    assert store.recorded(tmp_path / "demo.zarr")
    store.write(tmp_path / "demo.zarr", counted([3]))
    assert not store.recorded(tmp_path / "demo.zarr")


def test_marks_of_another_length_or_type_are_not_written(tmp_path: Path) -> None:
    for marks in (np.zeros(2, bool), np.zeros(3, np.int8)):
        with pytest.raises(StoreError, match="data/intervention: expected"):
            store.write(tmp_path / "demo.zarr", replace(counted([3]), intervention=marks))


def test_other_readers_of_the_replay_buffer_convention_can_read_it(tmp_path: Path) -> None:
    import zarr

    demos = synthetic(30)
    store.write(tmp_path / "demo.zarr", demos)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root: Any = zarr.open(str(tmp_path / "demo.zarr"), mode="r")
        np.testing.assert_array_equal(root["data"]["action"][:], demos.action)
        np.testing.assert_array_equal(root["meta"]["episode_ends"][:], demos.episode_ends)
        assert list(root["meta"]["session"][:]) == list(demos.columns["session"])
        assert {array.shape[0] for _, array in root["data"].arrays()} == {len(demos.action)}
    assert root.attrs["spec"]["control_hz"] == 10
    assert root["meta/episode_ends"].fill_value == -1
    assert np.isnan(root["data/action"].fill_value)


def test_a_plain_reader_notices_every_flipped_bit_of_a_shard(tmp_path: Path) -> None:
    """Without our manifest: crc32c is the last codec in the chunks and in the index."""
    import zarr

    store.write(tmp_path / "demo.zarr", counted([40]))
    random = np.random.default_rng(0)
    for name in ("data/observation", "data/time_s", "meta/success", "meta/source", "meta/episode_ends"):
        file = next(path for path in (tmp_path / "demo.zarr" / name / "c").rglob("*") if path.is_file())
        intact = file.read_bytes()
        for bit in random.integers(8 * len(intact), size=20):
            damaged = bytearray(intact)
            damaged[bit // 8] ^= 1 << (bit % 8)
            file.write_bytes(damaged)
            with pytest.raises(ValueError):
                zarr.open_array(tmp_path / "demo.zarr" / name, mode="r")[...]
        file.write_bytes(intact)


def test_a_store_of_many_steps_has_tens_of_files_in_exactly_the_described_layout(tmp_path: Path) -> None:
    demos = counted([60_000, 60_000])
    store.write(tmp_path / "demo.zarr", demos)
    files = tree(tmp_path / "demo.zarr")
    assert len(files) < 60
    assert max(map(len, files.values())) < 2**20
    for name, array in schema.arrays(demos).items():
        document = manifest.document(files[f"{name}/zarr.json"], tmp_path)
        assert document == {**inspection.describe(schema.Layout.of(name, array.shape)), "attributes": {}}
    assert_equal(store.read(tmp_path / "demo.zarr"), demos)


def test_a_row_too_wide_for_one_file_is_refused() -> None:
    with pytest.raises(StoreError, match="data/observation: rows of 1000000 numbers are too wide"):
        schema.Layout.of("data/observation", (2000, 1_000_000))
    assert schema.Layout.of("data/observation", (50_000, 8_000)).shard_rows == 4 * schema.CHUNK_ROWS


def broken(demos: Demonstrations, column: str, values: object) -> Demonstrations:
    return replace(demos, columns={**demos.columns, column: np.asarray(values)})


GOOD = counted([3, 2])
MALFORMED = {
    "observation of float64": (replace(GOOD, observation=GOOD.observation.astype(float)), "observation: expected flo"),
    "action of another width": (replace(GOOD, action=GOOD.action[:, :1]), r"data/action: expected shape \[5, 2\]"),
    "action of fewer steps": (replace(GOOD, action=GOOD.action[:4]), r"expected shape \[5, 2\], got \[4, 2\]"),
    "time as a column": (replace(GOOD, time_s=GOOD.time_s[:, None]), r"data/time_s: expected shape \[5\]"),
    "state of no width": (replace(GOOD, state=np.zeros((5, 0))), r"data/state: expected shape \[5, 0\]"),
    "no steps": (counted([]), "at least one episode"),
    "ends that fall": (replace(GOOD, episode_ends=np.array([5, 2])), "episode 1 ends at step 2, which is not after"),
    "ends from zero": (replace(GOOD, episode_ends=np.array([0, 5])), "episode 0 ends at step 0"),
    "ends that wrap": (replace(GOOD, episode_ends=np.array([2**63 - 1, -(2**63)])), "episode 1 ends at step -9"),
    "ends too early": (replace(GOOD, episode_ends=np.array([2, 4])), "the last episode, 1, ends at step 4"),
    "ends of int32": (replace(GOOD, episode_ends=np.array([3, 5], np.int32)), "meta/episode_ends: expected int64"),
    "a column missing": (replace(GOOD, columns={}), "expected the columns"),
    "a column too short": (broken(GOOD, "seed", [1]), r"meta/seed: expected shape \[2\]"),
    "success as numbers": (broken(GOOD, "success", [0, 1]), "meta/success: expected bool, got int64"),
    "texts as objects": (broken(GOOD, "task", np.array(["a", "b"], object)), "meta/task: expected string, got object"),
    "a NUL": (broken(GOOD, "task", ["a", "b\0c"]), "meta/task: episode 1: expected a text"),
    "a lone surrogate": (broken(GOOD, "task", ["\ud800", "b"]), "meta/task: episode 0: expected a text"),
    "a very long text": (broken(GOOD, "source", ["a" * 257, "b"]), "at most 256 characters"),
    "a limit of infinity": (
        replace(GOOD, spec=replace(GOOD.spec, action=(Channel("x", "m", 0, math.inf), *GOOD.spec.action[1:]))),
        r"spec: action\[0\].high: expected a finite number",
    ),
    "a channel without a name": (
        replace(GOOD, spec=replace(GOOD.spec, action=(Channel(None, "m", 0, 1), *GOOD.spec.action[1:]))),  # type: ignore[arg-type]
        r"spec: action\[0\].name: expected a text",
    ),
    "a rate of zero": (replace(GOOD, spec=replace(GOOD.spec, control_hz=0)), "control_hz: expected a positive rate"),
    "no channels": (replace(GOOD, spec=replace(GOOD.spec, action=())), "spec: action: expected at least one channel"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_demonstrations_are_not_written(tmp_path: Path, case: str) -> None:
    demos, sentence = MALFORMED[case]
    with pytest.raises(StoreError, match=sentence) as caught:
        store.write(tmp_path / "demo.zarr", demos)
    assert "demo.zarr" in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_not_a_store_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thesis"
    if kind == "file":
        path.write_text("mine")
    else:
        store.write(tmp_path / "real", GOOD) if kind == "link" else path.mkdir()
    if kind == "link":
        path.symlink_to(tmp_path / "real")
    with pytest.raises(StoreError, match="will not be replaced"):
        store.write(path, GOOD)
    assert os.path.lexists(path)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """A store that must be there, equal and alone, when the test is over."""
    path = tmp_path / "demo.zarr"
    store.write(path, GOOD)
    before = tree(path)
    yield path
    assert os.listdir(tmp_path) == ["demo.zarr"]
    assert tree(path) == before


NEW = counted([7, 7])
STRIDES = {"fsync": 5, "rename": 1, "mkdir": 5}  # both renames; of the many files every fifth


def fail_at(
    patch: pytest.MonkeyPatch, call: str, moment: int, failure: BaseException, work: Callable[[], object]
) -> list[int]:
    """Do `work` while the `moment`-th call of os.<call> raises; gives one entry per call."""
    real, made = getattr(os, call), []

    def failing(*args: object, **kwargs: object) -> object:
        made.append(1)
        if len(made) == moment:
            raise failure
        return real(*args, **kwargs)

    patch.setattr(os, call, failing)
    work()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("exchanging", [True, False], ids=["in one step", "in two"])
@pytest.mark.parametrize("call", STRIDES)
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_at_any_moment_leaves_the_old_store(
    old: Path, call: str, failure: BaseException, exchanging: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanging:
        monkeypatch.setattr(atomic, "_exchange", lambda *folders: False)
    with pytest.MonkeyPatch.context() as patch:
        total = len(fail_at(patch, call, 0, failure, lambda: store.write(old, NEW)))
    assert total >= {"fsync": 50, "rename": 0 if exchanging else 2, "mkdir": 50}[call]
    for moment in range(1, total + 1, STRIDES[call]):
        store.write(old, GOOD)
        wanted, sentence = GOOD, "the disk is full"
        with pytest.MonkeyPatch.context() as patch:
            try:
                fail_at(patch, call, moment, failure, lambda: store.write(old, NEW))
                wanted = NEW  # a folder that could not be made, since it was there
            except StoreError as error:
                sentence = str(error)
            except KeyboardInterrupt:
                pass
        assert "the disk is full" in sentence
        assert os.listdir(old.parent) == ["demo.zarr"]
        assert_equal(store.read(old), wanted)
    store.write(old, GOOD)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_an_exchange_that_fails_leaves_the_old_store(
    old: Path, failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*folders: Path) -> bool:
        raise failure

    monkeypatch.setattr(atomic, "_exchange", failing)
    with pytest.raises((StoreError, KeyboardInterrupt)):
        store.write(old, NEW)
    assert os.listdir(old.parent) == ["demo.zarr"]
    assert_equal(store.read(old), GOOD)


def test_everything_is_on_the_disk_before_the_rename_and_the_ends_come_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    rename = os.rename

    def noted(*paths: Path) -> None:
        events.append("rename")
        rename(*paths)

    monkeypatch.setattr(os, "rename", noted)
    store.write(tmp_path / "demo.zarr", GOOD)
    synced = [event.split("/.demo.zarr.new")[-1].lstrip("/") for event in events[: events.index("rename")]]
    files = [name for name in synced if (tmp_path / "demo.zarr" / name).is_file()]
    folders = {str(path.relative_to(tmp_path / "demo.zarr")) for path in (tmp_path / "demo.zarr").rglob("*")}
    assert {*synced} == folders | {""}
    arrays = [name for name in files if "/c/" in name]
    assert arrays[0].startswith("data/")
    assert arrays[-1].startswith("meta/episode_ends")
    assert files[-1] == "manifest.json"
    assert events[events.index("rename") + 1 :] == [str(tmp_path)]


def test_a_file_that_may_not_grow_is_a_sentence(old: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot be written: File too large; nothing is left half written"):
            store.write(old, counted([1000]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / ("n" * 300), tmp_path / "file" / "demo.zarr"):
        with pytest.raises(StoreError, match=r"cannot be written: (File name too long|Not a directory|File exists)"):
            store.write(path, GOOD)


def test_a_second_writer_is_refused(old: Path) -> None:
    writer = atomic.replacing(old, StoreError)
    writer.__enter__()
    with pytest.raises(StoreError, match=r"\.demo\.zarr\.lock: another process is writing"):
        store.write(old, NEW)
    assert writer.__exit__(RuntimeError, RuntimeError("the first one gives up"), None) is False


def test_what_a_dead_writer_left_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    store.write(tmp_path / "demo.zarr", GOOD)
    (tmp_path / ".demo.zarr.lock").touch()
    (tmp_path / ".demo.zarr.new" / "data").mkdir(parents=True)
    (tmp_path / "demo.zarr").rename(tmp_path / ".demo.zarr.old")
    assert_equal(store.read(tmp_path / "demo.zarr"), GOOD)
    store.write(tmp_path / "demo.zarr", NEW)
    assert os.listdir(tmp_path) == ["demo.zarr"]
    assert_equal(store.read(tmp_path / "demo.zarr"), NEW)
