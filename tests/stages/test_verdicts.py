"""A verdict's evidence in a bucket: put by `register`, found by `replay`, on a machine that has nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.gate_folder import FACTS, made
from tests.support.s3_faults import Between
from vqbet import storage
from vqbet.commands import release
from vqbet.contract import EpisodeRecord, RegistryError, StorageError
from vqbet.evaluation import evidence as files
from vqbet.evaluation.plan import Plan
from vqbet.stages import verdicts
from vqbet.stages.paths import Paths


@pytest.fixture
def folder(plan: Plan, arm: Callable[..., list[EpisodeRecord]], tmp_path: Path) -> Path:
    """Evidence in the project `here`."""
    store = Paths(tmp_path / "here", "").verdicts
    return store / files.pack(store, made(plan, arm, tmp_path / "gate"), FACTS)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that does not have it."""

    def fetch(prefix: str, store: Path) -> Path:
        raise RegistryError(f"the registry: 0 verdicts have an id that begins with {prefix!r}")

    monkeypatch.setattr(verdicts.registry, "fetch", fetch)


@pytest.fixture
def bucket(s3: Between, monkeypatch: pytest.MonkeyPatch) -> storage.Bucket:
    monkeypatch.setenv("VQBET_STORAGE", f"s3://{s3.bucket}/team")
    return storage.Bucket.at(f"s3://{s3.bucket}/team")


@pytest.mark.usefixtures("absent")
class TestReplay:
    def test_from_the_bucket_and_then_from_here(
        self, bucket: storage.Bucket, s3: Between, folder: Path, tmp_path: Path
    ) -> None:
        bucket.put_folder(folder.name, folder)
        told = verdicts.replay(tmp_path / "there", folder.name[:8])
        assert told["recomputed"] == "byte for byte the same"
        assert told["files"] == str(Paths(tmp_path / "there", "").verdicts / folder.name)
        s3.seen.clear()
        assert verdicts.replay(tmp_path / "there", folder.name[:8]) == told
        assert s3.seen == []

    def test_from_the_registry_first(
        self, bucket: storage.Bucket, s3: Between, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fetch(prefix: str, store: Path) -> Path:
            return Path(shutil.copytree(folder, store / folder.name))

        monkeypatch.setattr(verdicts.registry, "fetch", fetch)
        assert verdicts.replay(tmp_path / "there", folder.name[:8])["evidence"].startswith(folder.name)
        assert s3.seen == []

    def test_without_a_bucket_the_registry_has_the_word(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("VQBET_STORAGE", raising=False)
        with pytest.raises(RegistryError, match=r"^the registry: 0 verdicts"):
            verdicts.replay(tmp_path / "there", "abc")

    def test_nowhere(self, bucket: storage.Bucket, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"^the registry: 0 verdicts .*; s3://.*/team/evidence: expected one"):
            verdicts.replay(tmp_path / "there", "abc")

    def test_one_byte_changed_in_the_bucket(
        self, bucket: storage.Bucket, folder: Path, tmp_path: Path, s3: Between
    ) -> None:
        bucket.put_folder(folder.name, folder)
        changed = (folder / "records.jsonl").read_bytes().replace(b"0.6", b"0.7", 1)
        bucket.object(f"evidence/{folder.name}/records.jsonl").put(changed)
        with pytest.raises(StorageError, match=r"records\.jsonl: was changed"):
            verdicts.replay(tmp_path / "there", folder.name)
        assert files.folders(Paths(tmp_path / "there", "").verdicts) == []


class TestRegister:
    @pytest.fixture
    def kept(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
        """What a registry that takes everything was given, in order; bundles and evidence are there."""
        given: list[tuple[str, Any]] = []

        def bundle(path: Path) -> Any:
            arguments = {"chunk": 1, "channels": 1, "layers": 1}
            return SimpleNamespace(digest=path.name, arguments=arguments, spec=None, provenance={"data": "d"})

        def sealed(root: Path, task: str) -> tuple[str, Any]:
            given.append(("sealed", task))
            return folder.name, SimpleNamespace(outcome="HOLD", reason="equal", candidate="c")

        for module, name, value in (
            (release.bounds, "committed", lambda *_: SimpleNamespace(gate=SimpleNamespace(evidence=["simulated"]))),
            (release.registry, "check", lambda: given.append(("check", ""))),
            (release.registry, "attach", lambda proof, report: given.append(("attach", proof))),
            (release.registry, "register", lambda name, _, **o: given.append((name, o["tags"])) or 1),
            (release.registry, "champion", lambda _: None),
            (release.registry, "set_candidate", lambda *_: None),
            (release.registry, "resolve", lambda reference: reference),
            (release.links, "describe", lambda version: given.append(("describe", version))),
            (release.bundle, "read", bundle),
            (release.sealing, "sealed", sealed),
            (release.versions, "unmade", lambda root, stages: []),
            (release.worktree, "tags", lambda _: {"git_commit": "g"}),
            (release.artifacts, "read_metrics", lambda *_: {"score": 0.5, "score_low": 0.4, "score_high": 0.6}),
        ):
            monkeypatch.setattr(module, name, value)
        return given

    def test_puts_it_and_says_where(
        self, bucket: storage.Bucket, kept: list[tuple[str, Any]], folder: Path, tmp_path: Path
    ) -> None:
        told = release.register(tmp_path / "here", "point")
        assert told["stored"] == bucket.address(f"evidence/{folder.name}")
        assert [name for name, _ in kept] == ["check", "sealed", "attach", "point-tokenizer", "point", "describe"]
        assert kept[-1][1] == "point/1"
        assert kept[-2][1]["stored"] == told["stored"]
        assert "stored" not in kept[-3][1]
        assert bucket.keys("")[-1] == f"evidence/{folder.name}/verdict.json"

    def test_not_set_changes_nothing(
        self, s3: Between, kept: list[tuple[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("VQBET_STORAGE", raising=False)
        assert "stored" not in release.register(tmp_path / "here", "point")
        assert "stored" not in kept[-2][1]
        assert s3.seen == []

    def test_a_wrong_bucket_is_said_before_the_work(
        self, s3: Between, kept: list[tuple[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VQBET_STORAGE", "s3://nowhere-at-all")
        with pytest.raises(StorageError, match="NoSuchBucket"):
            release.register(tmp_path / "here", "point")
        assert kept == [("check", "")]
