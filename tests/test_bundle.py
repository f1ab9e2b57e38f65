"""A bundle is exactly what was written, or it is refused, naming the component."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import more
from vqbet import bundle, policies
from vqbet.contract import BundleError, Channel, Spec
from vqbet.files import atomic

SPEC = Spec(
    task="reach",
    observation=(Channel("x", "m", -1.0, 1.0), Channel("y", "m", -1.0, 1.0)),
    action=(Channel("vx", "m/s", -0.5, 0.5),),
    control_hz=10.0,
    action_kind="relative",
    frame="table",
)
COMPONENTS: dict[str, dict[str, np.ndarray]] = {
    "tokenizer": {"codebooks": np.arange(12, dtype=np.float32).reshape(2, 3, 2), "scale": np.array([0.5])},
    "prior": {"head.weight": np.ones((3, 2), np.float32), "steps": np.array(7, np.int64)},
}
GOLDEN = "fe431048a458fafbb72654f1a4d7d1015d44d04be1c411b2d52522cf3e0cf56d"


def write(folder: Path, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "kind": "vqbet",
        "spec": SPEC,
        "arguments": {"chunk": 5, "execute": "first", "temperature": 1e-4},
        "components": COMPONENTS,
        "provenance": {"code": "c0de", "data": "da7a", "params": {"lr": 1e-3, "note": "Größe"}},
    }
    return bundle.write(folder, **arguments | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "policy")
    return tmp_path / "policy"


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def forge(folder: Path, **changes: Any) -> None:
    """Rewrite bundle.json as somebody would who knows how digests are made."""
    content = json.loads((folder / "bundle.json").read_bytes()) | changes
    covered = {key: value for key, value in content.items() if key != "digest"}
    canonical = json.dumps(covered, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    content["digest"] = hashlib.sha256(canonical).hexdigest()
    text = json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    (folder / "bundle.json").write_text(text, encoding="utf-8")


def forge_component(folder: Path, name: str, data: bytes) -> None:
    (folder / f"{name}.safetensors").write_bytes(data)
    components = json.loads((folder / "bundle.json").read_bytes())["components"]
    components[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    forge(folder, components=components)


def test_comes_back_as_written(tmp_path: Path) -> None:
    digest = write(tmp_path / "policy")
    read = bundle.read(tmp_path / "policy", digest)
    assert (read.digest, read.kind, read.spec, read.folder) == (digest, "vqbet", SPEC, tmp_path / "policy")
    assert read.arguments == {"chunk": 5, "execute": "first", "temperature": 1e-4}
    assert read.provenance["params"]["note"] == "Größe"
    assert read.components.keys() == COMPONENTS.keys()
    for name, tensors in COMPONENTS.items():
        assert read.components[name].keys() == tensors.keys()
        for key, value in tensors.items():
            found = read.components[name][key]
            assert found.dtype == value.dtype
            assert found.shape == value.shape
            np.testing.assert_array_equal(found, value)


def test_format_has_not_changed(folder: Path) -> None:
    """A bundle of schema 1 has this digest for ever; another one needs another schema version."""
    assert bundle.read(folder).digest == GOLDEN


def test_bytes_depend_on_content_alone(tmp_path: Path) -> None:
    write(tmp_path / "one")
    reordered = {name: dict(reversed(COMPONENTS[name].items())) for name in reversed(COMPONENTS)}
    write(tmp_path / "elsewhere" / "two", components=reordered)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "elsewhere" / "two")


def test_arrays_that_are_views_are_written_as_they_look(tmp_path: Path) -> None:
    view = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    write(tmp_path / "policy", components={"prior": {"view": view}})
    np.testing.assert_array_equal(bundle.read(tmp_path / "policy").components["prior"]["view"], view)


@more(150)
@given(data=st.data())
def test_any_changed_byte_is_refused(folder: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(folder.iterdir())), "file")
    good = path.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1), "place")
    flip = data.draw(st.integers(1, 255), "flip")
    path.write_bytes(good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :])
    try:
        with pytest.raises(BundleError, match=path.name.removesuffix(".safetensors")):
            bundle.read(folder)
    finally:
        path.write_bytes(good)


@pytest.mark.slow
def test_every_byte_counts(folder: Path) -> None:
    """One bit of each byte of bundle.json and of a component, one byte after the other."""
    for name in ("bundle.json", "prior.safetensors"):
        good = (folder / name).read_bytes()
        for place in range(len(good)):
            changed = bytearray(good)
            changed[place] ^= 1 << place % 8
            (folder / name).write_bytes(changed)
            with pytest.raises(BundleError):
                bundle.read(folder)
        (folder / name).write_bytes(good)
    bundle.read(folder)


@pytest.mark.parametrize("name", ["bundle.json", "prior.safetensors", "tokenizer.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "shorter", "longer", "symlink", "folder", "pipe"])
def test_damaged_files_are_refused_by_name(folder: Path, name: str, damage: str, tmp_path: Path) -> None:
    path = folder / name
    good = path.read_bytes()
    path.unlink()
    if damage == "symlink":
        (tmp_path / "copy").write_bytes(good)
        path.symlink_to(tmp_path / "copy")
    elif damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage != "missing":
        path.write_bytes({"empty": b"", "shorter": good[:-1], "longer": good + b"\n"}[damage])
    with pytest.raises(BundleError, match=name.removesuffix(".safetensors")):
        bundle.read(folder)


def test_extra_file_is_refused(folder: Path) -> None:
    (folder / "policy.pkl").write_bytes(b"")
    with pytest.raises(BundleError, match=r"policy\.pkl does not belong"):
        bundle.read(folder)


def test_symlinked_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(BundleError, match="no symbolic link"):
        bundle.read(tmp_path / "link")
    with pytest.raises(BundleError, match="not overwritten"):
        write(tmp_path / "link")


def test_swapped_component_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    other = {**COMPONENTS, "tokenizer": {key: value + 1 for key, value in COMPONENTS["tokenizer"].items()}}
    write(tmp_path / "other", components=other)
    shutil.copy(tmp_path / "other" / "tokenizer.safetensors", folder)
    with pytest.raises(BundleError, match=r"component 'tokenizer': .*swapped.*dvc"):
        bundle.read(folder)


def test_other_digest_names_both(folder: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", kind="nearest")
    with pytest.raises(BundleError) as caught:
        bundle.read(folder, other)
    assert other in str(caught.value)
    assert bundle.read(folder).digest in str(caught.value)


def test_another_task_is_refused(folder: Path) -> None:
    read = bundle.read(folder)
    bundle.expect(read, SPEC)
    other = Spec.from_json(SPEC.to_json() | {"task": "push", "control_hz": 20.0})
    with pytest.raises(BundleError, match="task: 'push' here, 'reach' there; control_hz"):
        bundle.expect(read, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "VQ BeT"}, "kind"),
        ({"arguments": {"temperature": float("nan")}}, "finite JSON"),
        ({"arguments": {"policy": object()}}, "JSON"),
        ({"provenance": {"params": [{3: "three"}]}}, "key is not text"),
        ({"components": {"../prior": {"a": np.zeros(1)}}}, "lower case"),
        ({"components": {"prior": {}}}, "at least one tensor"),
        ({"components": {"prior": {"a b": np.zeros(1)}}}, "'a b'"),
        ({"components": {"prior": {"a": np.array([None])}}}, "object"),
        ({"components": {"prior": {"a": np.zeros(1, np.complex64)}}}, "complex64"),
        ({"components": {"prior": {"a": np.array([1.0, np.nan])}}}, "'a' holds values that are not finite"),
    ],
)
def test_what_a_bundle_cannot_hold_is_not_written(folder: Path, changes: dict[str, Any], message: str) -> None:
    before = bytes_of(folder)
    with pytest.raises(BundleError, match=message):
        write(folder, **changes)
    assert bytes_of(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["policy"]


def test_a_bundle_is_replaced_whole(folder: Path) -> None:
    digest = write(folder, components={"prior": COMPONENTS["prior"]})
    assert bundle.read(folder, digest).components.keys() == {"prior"}
    assert [path.name for path in folder.parent.iterdir()] == ["policy"]


@pytest.mark.parametrize("fault", ["disk", "exchange"])
def test_failed_write_leaves_the_old_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    before = bytes_of(folder)

    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    target, name = (os, "fsync") if fault == "disk" else (atomic, "_exchange")
    monkeypatch.setattr(target, name, refuse)
    with pytest.raises(BundleError, match="No space left on device"):
        write(folder, kind="nearest")
    assert bytes_of(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["policy"]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(BundleError, match="not overwritten"):
        write(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (struct.pack("<Q", 1 << 40) + b"{}", "header"),
        (safetensors(b" " * ((1 << 20) + 1)), "header"),
        (b"\x80", "header"),
        (b"\x80\x04\x95junk that is a pickle", "header"),
        (safetensors(b"[" * 100_000), "safetensors"),
        (safetensors(b"[]"), "safetensors"),
        (safetensors(b'{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}', b"\0"), "'a': name or dtype"),
        (safetensors(b'{"__import__(x)":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"\0"), "name or dtype"),
        (safetensors(b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}', b"\0" * 4), "safetensors"),
        (safetensors(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[5,6]}}', b"\0"), "safetensors"),
        (safetensors(b'{"__metadata__":{"x":"y"}}'), "safetensors|name or dtype"),
    ],
)
def test_forged_components_are_refused(folder: Path, data: bytes, message: str) -> None:
    """With digests that fit, as an attacker would make them."""
    forge_component(folder, "prior", data)
    with pytest.raises(BundleError, match=f"component 'prior'.*({message})"):
        bundle.read(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "expected schema 1, got 2"),
        ({"extra": 1}, "extra"),
        ({"kind": 3}, "kind"),
        ({"arguments": []}, "arguments"),
        ({"components": {"../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}}, "no name for a file"),
        ({"components": {"prior": {"bytes": True, "sha256": "0" * 64}}}, "expected 0 to .* bytes, got True"),
        ({"components": {"prior": {"bytes": 1 << 50, "sha256": "0" * 64}}}, "expected 0 to .* bytes, got"),
        ({"components": {"prior": None}}, "expected bytes and sha256"),
        ({"spec": {"task": "reach"}}, "spec"),
        ({"spec": SPEC.to_json() | {"colour": "red"}}, "spec"),
        ({"spec": SPEC.to_json() | {"action": ["x"]}}, "spec"),
    ],
)
def test_forged_manifests_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    forge(folder, **changes)
    with pytest.raises(BundleError, match=message):
        bundle.read(folder)


@pytest.mark.parametrize(
    "text", ["", "null", "[" * 100_000, '{"schema": NaN}', '{"schema":1,"schema":1}', "\ud800", "1" * 5000]
)
def test_foreign_manifests_are_refused(folder: Path, text: str) -> None:
    (folder / "bundle.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BundleError, match=r"bundle\.json"):
        bundle.read(folder)


class Echo:
    """A planner that remembers what it was built from."""

    def __init__(self, arguments: Any, components: Any) -> None:
        self.built = (arguments["chunk"], sorted(components))
        self.window, self.chunk, self.tags = 1, arguments["chunk"], 0
        self.channels = (len(SPEC.observation), len(SPEC.action), 0)


ECHO = {"vqbet": Echo}


def test_load_builds_the_policy(folder: Path) -> None:
    write(folder, arguments={"chunk": 5, "execute": "first", "goal": []})
    policy, read = policies.load(folder, kinds=ECHO)
    assert policy.spec == SPEC
    assert policy.planner.built == (5, ["prior", "tokenizer"])
    assert read.digest == bundle.read(folder).digest


def test_load_refuses_what_this_code_cannot_build(folder: Path) -> None:
    write(folder, kind="tokenizer")
    assert bundle.read(folder).kind == "tokenizer"
    with pytest.raises(BundleError, match=r"kind 'tokenizer'.*knows vqbet"):
        policies.load(folder, kinds=ECHO)
    write(folder, arguments={"execute": "first", "goal": []})
    with pytest.raises(BundleError, match=r"KeyError: 'chunk'.*code 'c0de'"):
        policies.load(folder, kinds=ECHO)
