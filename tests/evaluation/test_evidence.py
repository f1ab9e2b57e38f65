"""Evidence: packed once, recomputed from itself alone, every planted change named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.gate_folder import FACTS, made
from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import evidence, records
from vqbet.evaluation.plan import Plan
from vqbet.files import canonical

Arm = Callable[..., list[EpisodeRecord]]


@pytest.fixture
def files(plan: Plan, arm: Arm, tmp_path: Path) -> dict[str, Path]:
    return made(plan, arm, tmp_path / "gate")


def test_a_verdict_is_recomputed_from_its_evidence_alone(files: dict[str, Path], tmp_path: Path) -> None:
    packed = evidence.pack(tmp_path / "store", files, FACTS)
    for path in files.values():
        path.unlink()
    folder = evidence.find(tmp_path / "store", packed[:8])
    assert folder.name == packed
    assert evidence.replay(folder).outcome == "PROMOTE"
    assert records.parse((folder / "facts.json").read_text(), "facts") == FACTS
    assert (folder / "films" / "seed-1.webm").read_bytes() == b"film"


def test_a_verdict_is_packed_once(files: dict[str, Path], tmp_path: Path) -> None:
    """Whatever else is known by then: its id is what the ledger names, and what may be used once."""
    store = tmp_path / "store"
    one = evidence.pack(store, files, FACTS)
    assert evidence.pack(store, files, {**FACTS, "data_version": "another"}) == one
    assert [folder.name for folder in evidence.folders(store)] == [one]


def test_the_same_files_have_the_same_id(files: dict[str, Path], tmp_path: Path) -> None:
    assert evidence.pack(tmp_path / "one", files, FACTS) == evidence.pack(tmp_path / "two", files, FACTS)


def test_a_verdict_that_does_not_follow_is_not_packed(files: dict[str, Path], tmp_path: Path) -> None:
    path = files["verdict.json"]
    path.write_text(path.read_text().replace("PROMOTE", "HOLD"))
    with pytest.raises(GateError, match="the evidence beside it gives another verdict"):
        evidence.pack(tmp_path / "store", files, FACTS)
    assert evidence.folders(tmp_path / "store") == []
    assert list((tmp_path / "store").iterdir()) == []


def test_one_byte_anywhere_is_detected(files: dict[str, Path], tmp_path: Path) -> None:
    packed = evidence.pack(tmp_path / "store", files, FACTS)
    folder, random = tmp_path / "store" / packed, np.random.default_rng(0)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        good = path.read_bytes()
        for place in random.choice(len(good), min(len(good), 6), replace=False).tolist():
            path.write_bytes(good[:place] + bytes([good[place] ^ (1 << int(random.integers(8)))]) + good[place + 1 :])
            with pytest.raises(GateError, match=path.name.replace(".", r"\.")):
                evidence.replay(folder)
        path.write_bytes(good)
    assert evidence.replay(folder).outcome == "PROMOTE"


def test_what_is_missing_or_added_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "store" / evidence.pack(tmp_path / "store", files, FACTS)
    (folder / "note.txt").write_text("fine")
    with pytest.raises(GateError, match=r"note\.txt: was added"):
        evidence.replay(folder)
    (folder / "note.txt").unlink()
    os.symlink("/etc/hostname", folder / "link")
    with pytest.raises(GateError, match="link: expected a plain file, got a link"):
        evidence.replay(folder)
    (folder / "link").unlink()
    (folder / "films" / "seed-1.webm").unlink()
    with pytest.raises(GateError, match=r"seed-1\.webm: is missing"):
        evidence.replay(folder)


def test_a_manifest_that_names_too_little_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    """Records left out and the manifest made anew: the id is another, and what is needed is not there."""
    folder = tmp_path / "store" / evidence.pack(tmp_path / "store", files, FACTS)
    (folder / "records.jsonl").unlink()
    manifest = records.parse((folder / "manifest.json").read_text(), "manifest")
    del manifest["files"]["records.jsonl"]
    (folder / "manifest.json").write_text(canonical.document(manifest))
    with pytest.raises(GateError, match=r"manifest\.json: was changed"):
        evidence.replay(folder)


def test_evidence_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="'abc': expected the beginning of one verdict's id, found 0; there are: none"):
        evidence.find(tmp_path / "store", "abc")
