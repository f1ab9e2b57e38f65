"""`vqbet export`: from a bundle to a folder that acts without torch, and what is refused on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import graphs, untrained
from tests.support.small import D, observations, play
from tests.support.synthetic import synthetic
from tests.support.untrained import SPEC
from vqbet import policies
from vqbet.commands import console, export
from vqbet.contract import BundleError
from vqbet.demos import store
from vqbet.policies import exported, in_onnx, to_onnx
from vqbet.policies.parity import SCENES
from vqbet.stages.progress import Watch


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle in a folder, and no project around the working directory."""
    monkeypatch.chdir(tmp_path)
    actor = untrained.build("average")
    untrained.packed(tmp_path / "bundle", actor, actor.components())
    return tmp_path / "bundle"


@pytest.mark.slow
def test_what_was_exported_acts_as_the_bundle_does(
    bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = export.run(str(bundle), tmp_path / "out", console.watch())
    one, packed = policies.load(bundle)
    other, found = policies.load(tmp_path / "out", packed.digest)
    assert isinstance(other.planner, in_onnx.InOnnx)
    assert (found.digest, found.spec, other.execute) == (packed.digest, packed.spec, "average")
    np.testing.assert_allclose(play(one, observations()), play(other, observations()), atol=1e-5)
    assert said["policy"] == f"fake, digest {packed.digest[:12]}"
    assert said["parity"].startswith(f"{SCENES} generated scenes: codes equal, actions within ")
    out, err = capfd.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == ["export"] * out.count("\n"), "progress and no remarks"
    assert err == ""


@pytest.mark.slow
def test_recorded_demonstrations_are_the_scenes_where_there_are_any(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("")
    demos = synthetic(6, D=D)
    store.write(tmp_path / "data" / "fake.zarr", replace(demos, spec=SPEC))
    said = export.run(str(bundle), tmp_path / "out", Watch())
    assert said["parity"].startswith(f"{SCENES} recorded scenes")
    assert exported.read(tmp_path / "out").parity["scenes"] == "recorded"


@pytest.mark.slow
def test_a_graph_that_computes_something_else_is_not_written(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: the graph of another temperature."""
    other = to_onnx.graph(untrained.build("average", temperature=3.0, watched=True).planner)
    monkeypatch.setattr(to_onnx, "graph", lambda planner: other)
    with pytest.raises(BundleError, match="parity: expected equal codes in all of 1024 generated scenes, got "):
        export.run(str(bundle), tmp_path / "out", Watch())
    assert not (tmp_path / "out").exists()


def test_an_exported_policy_is_not_exported_again(tmp_path: Path) -> None:
    folder = graphs.written(tmp_path / "policy")
    with pytest.raises(BundleError, match="expected a bundle, got a policy that was exported already; copy the folder"):
        export.run(str(folder), tmp_path / "out", Watch())


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a folder that holds a bundle"):
        export.run(str(tmp_path / "nothing"), tmp_path / "out", Watch())


def test_a_folder_in_use_is_refused_before_anything_is_computed(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="holds something that is no exported policy; choose another folder"):
        export.run(str(bundle), tmp_path / "out", Watch())
