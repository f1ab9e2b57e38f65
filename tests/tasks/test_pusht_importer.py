"""The published Push-T data: what is read from it, that our world replays it, and how foreign buffers are refused."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numcodecs import Blosc

from tests.support.buffers import ENDS, Fault, edit, within_limits, write
from vqbet.contract import COLUMNS, Demonstrations, StoreError, WorldError
from vqbet.demos.importers import replay_buffer
from vqbet.tasks.pusht import importer
from vqbet.tasks.pusht.geometry import CORNERS_PX, GOAL_POSE, PARTS_PX, placed
from vqbet.tasks.pusht.replay import replay
from vqbet.tasks.pusht.world import SUBSTEP_S, PushT, Table


def contents() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "data/state": generator.uniform(50, 450, (130, 5)).astype(np.float32),
        "data/keypoint": generator.uniform(50, 450, (130, 9, 2)).astype(np.float32),
        "data/action": generator.uniform(50, 450, (130, 2)).astype(np.float32),
        "meta/episode_ends": ENDS,
    }


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    return write(tmp_path / "made.zarr", contents(), Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE))


@pytest.fixture(scope="module")
def published(real_demos: Callable[[str], Path]) -> Demonstrations:
    return importer.load(real_demos("pusht"))


def test_reads_what_was_written(buffer: Path) -> None:
    wanted, demos = contents(), importer.load(buffer)
    np.testing.assert_array_equal(demos.observation[:, :18], wanted["data/keypoint"].reshape(-1, 18))
    np.testing.assert_array_equal(demos.observation[:, 18:], wanted["data/state"][:, :2])
    np.testing.assert_array_equal(demos.action, wanted["data/action"])
    np.testing.assert_array_equal(demos.state, wanted["data/state"])
    assert demos.state is not None
    assert (demos.observation.dtype, demos.action.dtype, demos.state.dtype) == (np.float32, np.float32, np.float64)
    np.testing.assert_array_equal(demos.episode_ends, ENDS)
    np.testing.assert_allclose(demos.time_s[[0, 39, 40, 54, 55, 129]], [0, 3.9, 0, 1.4, 0, 7.4])
    assert set(demos.columns) == set(COLUMNS)
    assert demos.columns["operator"].tolist() == ["unknown"] * 3, "only of a published set is it known"
    assert demos.columns["seed"].tolist() == [-1] * 3


def test_reads_uncompressed_doubles_and_short_ends(tmp_path: Path) -> None:
    arrays = {name: values.astype(np.float64) for name, values in contents().items()}
    arrays["meta/episode_ends"] = ENDS.astype(np.int32)
    demos = importer.load(write(tmp_path / "plain.zarr", arrays))
    np.testing.assert_array_equal(demos.state, arrays["data/state"])
    assert demos.episode_ends.dtype == np.int64


@pytest.mark.parametrize("depth", ["", "pusht", "data sets/pusht"])
def test_finds_the_buffer_in_folders_and_zips(buffer: Path, tmp_path: Path, depth: str) -> None:
    folder = tmp_path / "source"
    shutil.copytree(buffer, folder / depth / "made.zarr" if depth != "data sets/pusht" else folder / "pusht/made.zarr")
    np.testing.assert_array_equal(importer.load(folder).action, importer.load(buffer).action)
    archive = Path(shutil.make_archive(str(tmp_path / "made"), "zip", folder))
    np.testing.assert_array_equal(importer.load(archive).action, importer.load(buffer).action)


def test_success_is_closeness_of_the_last_pose_to_the_goal() -> None:
    x, y, angle = GOAL_POSE
    poses = [
        (x, y, angle),
        (x + 14, y, angle + 0.1),
        (x + 16, y, angle),
        (x, y, angle - 0.2),
        (x, y, angle + 2 * np.pi),
    ]
    states = np.array([[0.0, 0.0, *pose] for pose in poses])
    assert importer.arrived(states).tolist() == [True, True, False, False, True]


def test_numbers_that_are_not_finite_pass_to_validation(tmp_path: Path) -> None:
    arrays = contents()
    arrays["data/action"][7, 1] = np.nan
    assert np.isnan(importer.load(write(tmp_path / "nan.zarr", arrays)).action[7, 1])


def overwrite(name: str, content: bytes) -> Fault:
    return lambda root: (root / name).write_bytes(content) and None


def truncate(root: Path) -> None:
    path = root / "data/action/1.0"
    path.write_bytes(path.read_bytes()[:-5])


def inflate(root: Path) -> None:
    """A chunk whose own header asks for 512 MB."""
    path = root / "data/action/2.0"
    content = bytearray(path.read_bytes())
    content[4:8] = (512 * 2**20).to_bytes(4, "little")
    path.write_bytes(content)


def scramble(root: Path) -> None:
    path = root / "data/state/0.0"
    content = path.read_bytes()
    path.write_bytes(content[:16] + bytes(255 - byte for byte in content[16:]))


def link(name: str) -> Fault:
    def fault(root: Path) -> None:
        (root / name).rename(root.parent / "elsewhere")
        (root / name).symlink_to(root.parent / "elsewhere")

    return fault


def rewrite(name: str, values: np.ndarray) -> Fault:
    return lambda root: write(root, {**contents(), name: values}) and None


FAULTS: dict[str, tuple[Fault, str]] = {
    "no array": (lambda root: shutil.rmtree(root / "data/keypoint"), r"keypoint/.zarray: missing.*found: .*action"),
    "no ends": (lambda root: shutil.rmtree(root / "meta"), "episode_ends/.zarray: missing"),
    "no chunk": (lambda root: (root / "data/state/1.0").unlink(), r"data/state, from step 50: the chunk is missing"),
    "cut chunk": (truncate, r"action/1\.0: data/action, from step 50: the chunk is cut off"),
    "empty chunk": (overwrite("data/action/0.0", b"x"), "data/action, from step 0: the chunk is cut off: 1 bytes"),
    "bomb": (inflate, f"data/action, from step 100: the chunk unpacks to {512 * 2**20} bytes"),
    "scrambled": (scramble, "data/state: cannot be decoded"),
    "linked chunk": (link("data/action/0.0"), "data/action, from step 0: is a symbolic link"),
    "linked array": (link("data/action"), "data/action: is a symbolic link"),
    "linked group": (link("data"), "data: is a symbolic link"),
    "linked document": (link("data/action/.zarray"), "zarray: is a symbolic link"),
    "not JSON": (overwrite("data/state/.zarray", b"{"), "is not readable JSON"),
    "deep JSON": (overwrite("data/state/.zarray", b"[" * 60_000), "is not readable JSON"),
    "JSON list": (overwrite("data/state/.zarray", b"[]"), "expected a JSON object, got list"),
    "long JSON": (overwrite("data/state/.zarray", b" " * 70_000), "70000 bytes of metadata"),
    "objects": (
        edit("data/state", dtype="|O"),
        r"state/.zarray: data/state: dtype: expected '<f4' or '<f8', got '\|O'",
    ),
    "structures": (edit("data/state", dtype=[["x", "<f4"]]), "dtype: expected"),
    "other format": (edit("data/state", zarr_format=3), "zarr_format: expected 2, got 3"),
    "other order": (edit("data/state", order="F"), "order: expected 'C', got 'F'"),
    "filters": (edit("data/state", filters=[{"id": "pickle"}]), "filters: expected"),
    "codec": (edit("data/state", compressor={"id": "pickle"}), "compressor: expected 'blosc' or None, got 'pickle'"),
    "shape": (edit("data/state", shape=[130, 4]), r"shape: expected \(any number, 5\), got \(130, 4\)"),
    "rank": (edit("data/action", shape=[130]), r"shape: expected \(any number, 2\), got \(130,\)"),
    "negative": (edit("data/action", shape=[-1, 2]), "shape: expected a list of positive whole numbers"),
    "true": (edit("data/action", shape=[True, 2]), "shape: expected a list of positive whole numbers"),
    "chunks": (edit("data/action", chunks=[50, 1]), r"chunks: expected whole rows of \(2,\), got \(50, 1\)"),
    "huge": (edit("data/action", shape=[10**12, 2]), "the array has 8000000000000 bytes, more than"),
    "huge chunk": (edit("data/action", chunks=[10**9, 2]), "a chunk has 8000000000 bytes, more than"),
    "more steps": (edit("data/action", shape=[131, 2]), "data/action has 131"),
    "ends fall": (rewrite("meta/episode_ends", np.array([40, 30, 130])), "episode 1 ends at step 30, but starts at"),
    "ends short": (rewrite("meta/episode_ends", np.array([40, 55, 129])), "ends at step 129, but there are 130"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_refuses_a_broken_buffer(buffer: Path, name: str) -> None:
    fault, sentence = FAULTS[name]
    fault(buffer)
    with pytest.raises(StoreError, match=sentence) as refusal:
        importer.load(buffer)
    assert buffer.name in str(refusal.value)


def test_refuses_what_is_no_buffer(tmp_path: Path, buffer: Path) -> None:
    with pytest.raises(StoreError, match=r"missing: expected a folder"):
        importer.load(tmp_path / "missing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(StoreError, match="text: is not a whole zip archive"):
        importer.load(tmp_path / "text")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"holds no Zarr v2 replay buffer"):
        importer.load(tmp_path / "empty")
    shutil.copytree(buffer, tmp_path / "copy.zarr")
    with pytest.raises(StoreError, match=r"found 2 \(copy.zarr, made.zarr\)"):
        importer.load(tmp_path)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    with pytest.raises(StoreError, match="holds no Zarr v2 replay buffer"):
        importer.load(tmp_path / "other.zip")


def test_unreadable_memory_is_never_asked_for(buffer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All claims are refused before a single chunk is decompressed."""
    monkeypatch.setattr(replay_buffer, "_values", lambda claim: pytest.fail(f"decompressed {claim.name}"))
    inflate(buffer)
    with pytest.raises(StoreError, match="unpacks to"):
        importer.load(buffer)


def test_the_columns_say_what_was_read_and_not_where_it_lay(buffer: Path, tmp_path: Path) -> None:
    """The same numbers in another folder, dtype, chunk, codec and archive are the same source; others are another."""
    named = replay_buffer.content(replay_buffer.load(buffer, importer.FIELDS, max_bytes=2**30))
    arrays = {name: values.astype(np.float64) for name, values in contents().items() if name != "meta/episode_ends"}
    same = write(tmp_path / "elsewhere" / "other.zarr", arrays | {"meta/episode_ends": ENDS.astype(np.int32)})
    archive = Path(shutil.make_archive(str(tmp_path / "made"), "zip", tmp_path / "elsewhere"))
    for place in (buffer, same, archive):
        columns = importer.load(place).columns
        assert columns["source"].tolist() == columns["session"].tolist() == [f"replay_buffer:{named[:12]}"] * 3
    arrays["data/action"][7, 0] += 1
    foreign = importer.load(write(tmp_path / "foreign.zarr", arrays | {"meta/episode_ends": ENDS}))
    assert foreign.columns["source"][0].startswith("replay_buffer:")
    assert foreign.columns["source"][0] != f"replay_buffer:{named[:12]}"


def test_the_published_buffer(published: Demonstrations) -> None:
    assert set(published.columns["source"]) == {"pusht_cchi_v7_replay"}
    assert (set(published.columns["session"]), set(published.columns["operator"])) == ({"published"}, {"human"})
    assert published.observation.shape == (25650, 20)
    assert (len(published.lengths), published.lengths.min(), published.lengths.max()) == (206, 49, 246)
    assert published.columns["success"].all()
    assert published.spec == PushT().spec
    assert within_limits(published)


@pytest.mark.slow
def test_the_world_s_keypoints_are_the_recorded_ones(published: Demonstrations) -> None:
    """Bit for bit where nothing touches the block.

    Where something does, the recorded keypoints are those of two substeps of settling after the recorded state.
    """
    assert published.state is not None
    steps = np.arange(0, 25650, 25)
    state, recorded, env = published.state[steps], published.observation[steps], PushT()
    error = np.abs(env.restore(state) - recorded).max(axis=1)
    free = ~touched(state)
    assert free.sum() > 500
    assert error[free].max() == 0
    assert np.quantile(error, 0.99) < 0.05
    assert error.max() < 2
    worst = np.argsort(error)[-20:]
    settled = PushT()
    settled.restore(state[worst])
    for table in settled._tables:
        table.advance([(0.0, 0.0)] * 2)
    settled._state = np.array([table.state() for table in settled._tables])
    after = np.abs(settled._observed(np.arange(20)) - recorded[worst])[:, :18].max(axis=1)
    assert np.median(error[worst]) > 0.02
    assert np.median(after) < 1e-3


def touched(state: np.ndarray) -> np.ndarray:
    """Whether the finger or a wall is within about a pixel of the block."""
    offset = state[:, :2] - state[:, 2:4]
    cosine, sine = np.cos(state[:, 4]), np.sin(state[:, 4])
    local = np.stack(
        [cosine * offset[:, 0] + sine * offset[:, 1], cosine * offset[:, 1] - sine * offset[:, 0]], axis=-1
    )
    nearest = np.clip(local[:, None], PARTS_PX[:, 0], PARTS_PX[:, 1])
    finger = np.linalg.norm(local[:, None] - nearest, axis=2).min(axis=1) < 16
    corners = placed(CORNERS_PX.reshape(8, 2), state[:, 2:])
    return finger | ((corners < 8) | (corners > 503)).any(axis=(1, 2))


@pytest.mark.slow
def test_recorded_actions_replay_to_the_recorded_states(published: Demonstrations) -> None:
    seen = []
    found = replay(PushT(), published, np.arange(206), lambda done, total: seen.append((done, total)))
    best = found["max_coverage"]
    assert best.mean() == pytest.approx(0.8995, abs=0.001)
    assert np.median(best) == pytest.approx(0.8969, abs=0.001)
    assert best.min() == pytest.approx(0.8605, abs=0.001)
    assert (best > 0.95).sum() == 7
    assert (found["deviation_px"] <= 1).sum() >= 200
    assert seen[0] == (1, 246)
    assert seen[-1] == (246, 246)


def test_a_world_restored_in_the_legacy_order_fails_the_replay(
    published: Demonstrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def legacy(table: Table, agent_x: float, agent_y: float, block_x: float, block_y: float, angle: float) -> None:
        table.agent.position, table.block.position = (agent_x, agent_y), (block_x, block_y)
        table.block.angle = angle
        table.space.step(SUBSTEP_S)

    monkeypatch.setattr(Table, "place", legacy)
    found = replay(PushT(), published, np.arange(0, 206, 18))
    assert found["max_coverage"].mean() < 0.6
    assert (found["deviation_px"] <= 1).sum() == 0


def test_replay_refuses_what_it_cannot_replay(buffer: Path) -> None:
    demos = importer.load(buffer)
    fields = {name: getattr(demos, name) for name in ("action", "time_s", "episode_ends", "columns", "observation")}
    with pytest.raises(WorldError, match="hold no states"):
        replay(PushT(), Demonstrations(spec=demos.spec, **fields), np.arange(3))
    with pytest.raises(WorldError, match="an episode has 75 steps, the world ends after 20"):
        replay(PushT(max_steps=20), demos, np.arange(3))
    assert demos.state is not None
    demos.state[demos.episode_starts[2] : demos.episode_ends[2]] = np.nan  # recorded on a robot
    with pytest.raises(WorldError, match="hold no states"):
        replay(PushT(), demos, np.arange(3))
    replay(PushT(), demos, np.arange(2))
