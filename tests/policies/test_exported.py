"""An exported policy on disk: whole or refused, and bound to one bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vqbet
from tests.support import graphs, untrained
from tests.support.graphs import DIGEST, SHAPE
from tests.support.small import D, observations, play
from tests.support.untrained import SPEC
from vqbet import policies
from vqbet.contract import BundleError
from vqbet.files import canonical
from vqbet.files.manifest import Fingerprint
from vqbet.policies import exported
from vqbet.policies.exported import GRAPH, MANIFEST
from vqbet.serving.session import Session

OTHER = "cd" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return graphs.written(tmp_path / "policy")


def test_it_is_read_as_it_was_written(folder: Path) -> None:
    found = exported.read(folder, DIGEST)
    assert (found.bundle.digest, found.bundle.kind, found.bundle.spec) == (DIGEST, "vqbet", SPEC)
    assert found.parity == {"plans": 1, "scenes": "generated", "apart": 0.0}
    assert np.array_equal(play(found.policy, observations()), play(graphs.actor(), observations()))


def test_every_door_opens_it(folder: Path) -> None:
    """`policies.load`, `Session` and `vqbet.load` take it for the bundle it was made of."""
    policy, bundle = policies.load(folder, DIGEST)
    session, loaded = Session(folder, DIGEST), vqbet.load(folder, digest=DIGEST)
    session.start(0)
    policy.reset(np.array([0]))
    expected = policy.act(np.ones((1, D), np.float32), np.array([0]))[0]
    for acting in (session, loaded):
        assert np.array_equal(acting.act(np.ones(D, np.float32)), expected)
        assert acting.digest == bundle.digest == DIGEST


def test_the_numbers_of_the_guard_come_along_exactly(tmp_path: Path) -> None:
    numbers = {"limit.rate": np.array([0.1, 1 / 3], np.float32), "signal.entropy": np.array([0.25, 2.5])}
    _, bundle = policies.load(graphs.written(tmp_path / "policy", guard=numbers))
    assert bundle.components.keys() == {"guard"}
    for name, value in numbers.items():
        assert np.array_equal(bundle.components["guard"][name], value)


def test_equal_policies_give_equal_bytes(tmp_path: Path) -> None:
    one, two = graphs.written(tmp_path / "one"), graphs.written(tmp_path / "two")
    for name in (GRAPH, MANIFEST):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_another_export_replaces_it(folder: Path) -> None:
    graphs.written(folder, guard={"limit.rate": np.ones(2, np.float32)})
    assert exported.read(folder).bundle.components
    assert sorted(path.name for path in folder.iterdir()) == sorted((GRAPH, MANIFEST))


def test_a_folder_with_anything_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="holds something that is no exported policy; choose another folder"):
        graphs.written(tmp_path / "policy")
    assert (tmp_path / "policy" / "thesis.txt").read_text() == "years of work"


def test_a_graph_that_cannot_be_read_back_leaves_the_old_one(folder: Path) -> None:
    before = (folder / MANIFEST).read_bytes()
    with pytest.raises(BundleError, match="expected outputs"):
        graphs.written(folder, shape=replace(SHAPE, chunk=9))
    assert (folder / MANIFEST).read_bytes() == before
    exported.read(folder, DIGEST)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_the_export_of_another_bundle_is_refused(folder: Path) -> None:
    sentence = f"exported.json: expected an export of the bundle with digest {OTHER}, got {DIGEST}"
    for load in (lambda: policies.load(folder, OTHER), lambda: vqbet.load(folder, digest=OTHER)):
        with pytest.raises(BundleError, match=sentence):
            load()


def test_no_byte_is_free(folder: Path) -> None:
    """One flipped bit anywhere in either file, and nothing acts."""
    for name in (GRAPH, MANIFEST):
        data = (folder / name).read_bytes()
        for place in range(0, len(data), max(1, len(data) // 150)):
            changed = bytearray(data)
            changed[place] ^= 1
            (folder / name).write_bytes(changed)
            with pytest.raises(BundleError, match=name):
                exported.read(folder)
        (folder / name).write_bytes(data)
    exported.read(folder, DIGEST)


@pytest.mark.parametrize("name", [GRAPH, MANIFEST])
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), ""),
        (lambda path: path.write_bytes(path.read_bytes() + b"\n"), ""),
        (lambda path: path.write_bytes(b""), ""),
        (lambda path: path.symlink_to(path.rename(path.parents[1] / "elsewhere")), "link"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, name: str, fault: Callable[[Path], Any], sentence: str) -> None:
    fault(folder / name)
    with pytest.raises(BundleError, match=f"{name}.*{sentence}"):
        exported.read(folder)


def test_a_missing_graph_is_named(folder: Path) -> None:
    (folder / GRAPH).unlink()
    with pytest.raises(BundleError, match=r"policy\.onnx: is missing; export the bundle again"):
        exported.read(folder)


def test_a_file_too_many_is_named(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"0")
    with pytest.raises(BundleError, match=r"weights\.bin does not belong to the exported policy"):
        exported.read(folder)


def test_the_graph_of_another_export_is_refused(folder: Path) -> None:
    (folder / GRAPH).write_bytes(graphs.graph(window=4))
    with pytest.raises(BundleError, match=r"policy\.onnx: (was changed|expected a plain file of at most)"):
        exported.read(folder)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], object], *, sealed: bool = True) -> None:
    """Change the manifest's content and, unless not `sealed`, its digest with it, as a forger would."""
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    if sealed:
        covered = {key: value for key, value in content.items() if key != "digest"}
        content["digest"] = canonical.digest(covered, ascii=False)
    (folder / MANIFEST).write_text(canonical.document(content, ascii=False))


def test_a_change_without_the_digest_is_damage(folder: Path) -> None:
    rewritten(folder, lambda c: c.update(bundle=OTHER), sealed=False)
    with pytest.raises(BundleError, match=r"exported\.json: was changed or is damaged"):
        exported.read(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.update(schema=2), r"exported\.json: expected schema 1, got 2; use the code that wrote it"),
        (lambda c: c.pop("schema"), "'schema' is missing"),
        (lambda c: c.update(wings=1), "unknown or missing keys: wings"),
        (lambda c: c.pop("guard"), "unknown or missing keys: guard"),
        (lambda c: c.update(bundle="abc"), "bundle: expected a sha256, got 'abc'"),
        (lambda c: c["files"].pop(GRAPH), "files: 'policy.onnx' is missing"),
        (lambda c: c["files"].update({GRAPH: Fingerprint(5, "0" * 64).to_json()}), r"policy\.onnx"),
        (lambda c: c["graph"].update(window=9), r"policy\.onnx: expected inputs .* got .*; export it again"),
        (lambda c: c["graph"].pop("tags"), r"exported\.json: .*tags"),
        (lambda c: c["graph"].update(chunk="4"), r"exported\.json: .*expected whole numbers"),
        (lambda c: c["arguments"].pop("execute"), r"exported\.json: 'execute' is missing"),
        (lambda c: c["arguments"].update(execute="twice"), "execute: expected one of first, chunk, average"),
        (lambda c: c["arguments"].update(goal=["o9"]), "goal"),
        (lambda c: c["spec"].pop("control_hz"), r"exported\.json: .*control_hz"),
        (lambda c: c["spec"]["action"].pop(), "normalizer: action: expected 1 channels for 'fake', got 2"),
        (lambda c: c.update(guard={"limit.rate": "fast"}), r"exported\.json"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(folder: Path, change: Callable[..., object], sentence: str) -> None:
    rewritten(folder, change)
    with pytest.raises(BundleError, match=sentence):
        exported.read(folder)


@pytest.mark.parametrize("content", [b"[]", b"{", b"null", b"\xff", b'{"schema": NaN}', b"[" * 100_000])
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"exported\.json"):
        exported.read(folder)


def test_a_bundle_is_no_exported_policy(tmp_path: Path) -> None:
    actor = untrained.build()
    untrained.packed(tmp_path / "bundle", actor, actor.components())
    assert not exported.is_exported(tmp_path / "bundle")
    with pytest.raises(BundleError, match="holds something that is no exported policy"):
        graphs.written(tmp_path / "bundle")
