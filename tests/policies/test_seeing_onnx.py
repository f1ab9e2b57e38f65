"""A policy that sees, exported: from uint8 pictures to the same chunk, in onnxruntime, read, checked and served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import seeing, small, untrained
from tests.support.seeing import CAMERAS, SPEC
from tests.support.serving import running
from vqbet import policies
from vqbet.commands import export
from vqbet.contract import BundleError
from vqbet.policies import exported, familiarity
from vqbet.policies.in_onnx import InOnnx
from vqbet.serving.client import connect
from vqbet.serving.seats import Served
from vqbet.stages.progress import Watch


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folder of a bundle, and that of its export by the command, which compares both."""
    folder = tmp_path_factory.mktemp("seeing")
    actor = seeing.actor("first")
    size = 3 * familiarity.GRID**2
    guard = {"mean": np.zeros(size), "whitening": np.eye(size), "most": np.ones(1), "distance": np.ones(4)}
    known = {f"camera.{camera.name}.{name}": value for camera in CAMERAS for name, value in guard.items()}
    untrained.packed(folder / "bundle", actor, {**actor.components(), "guard": known})
    rows = export.run(str(folder / "bundle"), folder / "exported", Watch())
    assert rows["parity"].startswith("128 generated scenes: codes equal")
    return folder / "bundle", folder / "exported"


def test_features_are_those_of_torch_whatever_their_number(folders: tuple[Path, Path]) -> None:
    (torch, _), (onnx, _) = (policies.load(folder) for folder in folders)
    assert isinstance(onnx.planner, InOnnx)
    shown = seeing.pictures(5, seed=3)
    together = onnx.planner.see(shown)
    np.testing.assert_allclose(together, torch.planner.see(shown), atol=1e-6)
    for count in (1, 2, 3):
        some = {name: each[:count] for name, each in shown.items()}
        np.testing.assert_array_equal(onnx.planner.see(some), together[:count])


def test_it_is_served_as_its_bundle_is(folders: tuple[Path, Path]) -> None:
    """With what the guard knows of its cameras."""
    chunks = []
    for folder in folders:
        actor, packed = policies.load(folder)
        with (
            running(Served.of(actor, packed.digest, "seeing", packed.components)) as server,
            connect(server.url) as remote,
        ):
            assert remote.spec == SPEC
            remote.start(3)
            states = small.observations(4)[:, 0]
            shown = [{name: each[0] for name, each in seeing.pictures(1, seed=step).items()} for step in range(4)]
            chunks.append([remote.act(state, each) for state, each in zip(states, shown, strict=True)])
            signals = remote.plan(states[:3], 4, shown[:3]).signals
            assert signals["camera_top"] > 0
    np.testing.assert_allclose(chunks[0], chunks[1], atol=1e-5)


def test_eyes_belong_to_it(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for name in (exported.GRAPH, exported.EYES, exported.MANIFEST):
        (tmp_path / name).write_bytes((folders[1] / name).read_bytes())
    (tmp_path / exported.EYES).write_bytes(b"blind")
    with pytest.raises(BundleError, match=r"eyes.onnx: was changed, damaged or swapped"):
        exported.read(tmp_path)
    (tmp_path / exported.EYES).unlink()
    with pytest.raises(BundleError, match=r"eyes.onnx"):
        exported.read(tmp_path)


def test_goals_of_pictures_are_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    actor = seeing.actor()
    monkeypatch.setattr(actor.planner, "goal_features", actor.planner.features)
    with pytest.raises(BundleError, match="its goals are pictures, for which an exported graph has no input"):
        export._exportable("pusht_image/3", actor)
