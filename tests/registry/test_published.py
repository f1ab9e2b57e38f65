"""Ends of chains published as tags of git and objects in S3: what somebody writes anew or removes is noticed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import fuzz_ledger
from tests.support.people import commit, git, repository
from tests.support.s3_faults import Between
from tests.support.shelf import proof, registered, verdict
from vqbet import registry, storage
from vqbet.commands import audit, publication, release
from vqbet.contract import PipelineError, RegistryError, StorageError
from vqbet.registry import Head
from vqbet.stages.progress import Watch

TASK = fuzz_ledger.TASK
Chains = fuzz_ledger.Chains


def story(tmp_path: Path, root: Path, place: publication.Place) -> None:
    """Two promotions, each published as they are made."""
    (one, first), (two, second) = registered(tmp_path, "one", "two", name=TASK)
    registry.approve(TASK, proof("e1"), who="bob", why="saw it", hours=1)
    registry.promote(TASK, one, verdict=verdict(first), evidence=proof("e1"), who="ann", why="w", approvals=1)
    publication.after(root, TASK, place)
    registry.promote(TASK, two, verdict=verdict(second, first), evidence=proof("e2"), who="ann", why="w")
    publication.after(root, TASK, place)


@pytest.fixture
def root(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that publishes in git, with two published promotions."""
    folder = repository(tmp_path / "project", publish="git")
    monkeypatch.setenv("VQBET_PROJECT", str(folder))
    story(tmp_path, folder, "git")
    return folder


def found(root: Path) -> dict[str, str]:
    """What an audit finds wrong, without what is missing since bundles and evidence are stand-ins."""
    return {
        one.what: one.wrong
        for one in audit.run(root, TASK, Watch(), repair=False)
        if one.open and "evidence" not in one.what and not one.what.startswith(f"{TASK}/")
    }


def older(chains: Chains) -> None:
    del chains[TASK][1:]


def nothing(chains: Chains) -> None:
    for links in chains.values():
        links.clear()


def rewritten(chains: Chains) -> None:
    chains[TASK][0] |= {"who": "eve", "why": "another", "when": "2026-01-01T00:00:00+00:00"}


def relabelled(chains: Chains) -> None:
    chains[TASK][1] |= {"action": "force", "evidence": ""}


def disapproved(chains: Chains) -> None:
    chains[f"{TASK}.approvals"].clear()


ATTACKS: list[tuple[Callable[[Chains], None], str]] = [
    (older, f"{TASK}: entry 2 was published as .* and is not there: entries are missing"),
    (nothing, f"{TASK}: entry 1 was published as .* and is not there"),
    (rewritten, f"{TASK}: entry 1 was published as .* and is another now: the chain was written again"),
    (relabelled, f"{TASK}: entry 2 was published as .* and is another now"),
    (disapproved, rf"{TASK}\.approvals: entry 1 was published as .* and is not there"),
]


def attacked(attack: Callable[[Chains], None]) -> None:
    """Ledger, approvals, head tag and alias as somebody leaves them who writes both databases with care."""
    chains = {name: fuzz_ledger.read(name) for name in fuzz_ledger.CHAINS}
    attack(chains)
    for links in chains.values():
        fuzz_ledger.rehashed(links)
    fuzz_ledger.write(chains)


class TestGit:
    def test_the_honest_ledger_is_as_published(self, root: Path) -> None:
        assert found(root) == {}
        assert git(root, "tag", "--list").split() == [f"vqbet/{TASK}/1", f"vqbet/{TASK}/2"]
        assert git(root, "cat-file", "-t", f"vqbet/{TASK}/2").strip() == "tag"
        again = publication.publish(root, TASK, "git")
        assert again["published"] == f"tag vqbet/{TASK}/2, as before"
        assert "git push" in again["note"]

    @pytest.mark.parametrize(("attack", "says"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
    def test_what_was_written_anew_is_found(self, root: Path, attack: Callable[[Chains], None], says: str) -> None:
        attacked(attack)
        noticed = [wrong for what, wrong in found(root).items() if what.startswith("published")]
        assert any(re.search(says, wrong) for wrong in noticed), noticed

    @pytest.mark.slow
    def test_without_a_publication_nobody_notices(self, root: Path) -> None:
        """The limit, said: the same attack where nothing was published outside."""
        for tag in git(root, "tag", "--list").split():
            git(root, "tag", "--delete", tag)
        params = root / "params.yaml"
        params.write_text(params.read_text().replace("publish: git", "publish: none"))
        assert "is not published" in found(root)["published, 1"], "what nobody committed changes nothing"
        commit(root)
        attacked(relabelled)
        assert found(root) == {}
        notes = {one.what: one.note for one in audit.run(root, TASK, Watch(), repair=False)}
        assert "nothing is published outside" in notes["published"]
        assert "unsigned: no committed trust file" in notes["signatures"]

    @pytest.mark.slow
    def test_a_new_entry_is_not_published_yet(self, root: Path) -> None:
        registry.rollback(TASK, why="it dropped a cup", who="ann")
        assert found(root) == {
            "published, 1": f"{TASK}: entry 3 is not published; look at it, then: vqbet publish {TASK}"
        }
        publication.publish(root, TASK, "git")
        assert found(root) == {}

    def test_another_end_under_the_same_number_is_not_published(self, root: Path) -> None:
        attacked(rewritten)
        with pytest.raises(RegistryError, match=r"entry 2 was published in tag .* the ledger was written again"):
            publication.publish(root, TASK, "git")

    @pytest.mark.slow
    def test_a_tag_of_somebody_else(self, root: Path) -> None:
        git(root, "tag", f"vqbet/{TASK}/9")
        assert "vqbet/blockpush/9: is no published head" in found(root)["published"]

    @pytest.mark.usefixtures("home")
    def test_where_no_tag_can_be_made_nothing_is_promoted(self, tmp_path: Path) -> None:
        (tmp_path / "bare").mkdir()
        with pytest.raises(PipelineError, match=r"git cannot make a tag: .*not a git repository"):
            publication.ready(tmp_path / "bare", "git")
        with pytest.raises(RegistryError, match="publish is none"):
            publication.publish(tmp_path, TASK, "none")
        root = repository(tmp_path / "empty", publish="git")
        publication.ready(root, "git")
        with pytest.raises(RegistryError, match="there is no entry to publish"):
            publication.publish(root, TASK, "git")

    @pytest.mark.slow
    def test_a_rollback_stands_though_it_cannot_be_published(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(release, "unchanged", lambda *_: None)
        busy = root / ".git" / "refs" / "tags" / "vqbet" / TASK / "3.lock"
        busy.touch()
        with pytest.raises(RegistryError, match=r"as asked, but the entry is not published: .*vqbet publish"):
            release.rollback(root, TASK, why="w")
        busy.unlink()
        assert registry.history(TASK)[-1].action == "rollback"
        assert release.publish(root, TASK)["published"] == f"tag vqbet/{TASK}/3"


class TestS3:
    @pytest.fixture
    def locked(self, s3: Between, monkeypatch: pytest.MonkeyPatch) -> str:
        """A bucket with object lock, which keeps versions."""
        name = f"{s3.bucket}-locked"
        client = storage.Bucket.at(f"s3://{name}").client
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        monkeypatch.setenv("VQBET_STORAGE", f"s3://{name}/team")
        return name

    @pytest.fixture
    def project(self, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = repository(tmp_path / "project", publish="s3")
        monkeypatch.setenv("VQBET_PROJECT", str(folder))
        return folder

    def test_an_object_is_locked_and_found_after_it_was_deleted(
        self, project: Path, locked: str, tmp_path: Path
    ) -> None:
        story(tmp_path, project, "s3")
        assert "locked for 10 years, GOVERNANCE" in publication.publish(project, TASK, "s3")["note"]
        assert found(project) == {}
        bucket = storage.configured()
        assert bucket is not None
        key = f"team/heads/{TASK}/2.json"
        assert bucket.client.head_object(Bucket=locked, Key=key)["ObjectLockMode"] == "GOVERNANCE"
        bucket.client.delete_object(Bucket=locked, Key=key)  # leaves a marker; the version stays
        assert bucket.read(f"heads/{TASK}/2.json") is None
        attacked(older)
        assert "entry 2 was published as" in found(project)["published, 1"]

    def test_the_buckets_own_rule_holds(self, locked: str) -> None:
        bucket = storage.configured()
        assert bucket is not None
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}}
        bucket.client.put_object_lock_configuration(
            Bucket=locked, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )
        assert storage.create(bucket, "x", b"x") == (True, "locked for 30 days by the bucket's rule, COMPLIANCE")
        assert storage.create(bucket, "x", b"y")[0] is False

    def test_a_bucket_without_locks_says_so(
        self, s3: Between, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VQBET_STORAGE", f"s3://{s3.bucket}")
        story(tmp_path, project, "s3")
        assert "the bucket has no object lock" in publication.publish(project, TASK, "s3")["note"]
        assert found(project) == {}
        attacked(nothing)
        assert {what for what in found(project) if what.startswith("published")} >= {"published, 1", "published, 2"}

    def test_no_bucket_no_promotion(self, project: Path, s3: Between, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(RegistryError, match="VQBET_STORAGE is not set"):
            publication.ready(project, "s3")
        assert "nothing was compared there" in found(project)["published, 1"]
        monkeypatch.setenv("VQBET_STORAGE", "s3://nowhere-at-all")
        with pytest.raises(StorageError, match="NoSuchBucket"):
            publication.ready(project, "s3")


class TestHead:
    def test_round_trip(self) -> None:
        head = Head("tiny", {"tiny": (3, "a" * 64), "tiny.attempts": (7, "b" * 64)})
        assert Head.parse("tiny", head.content()) == head

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[" * 4000,
            b"[]",
            b'{"task":"pusht","ends":{}}',
            b'{"task":"tiny","ends":[]}',
            b'{"task":"tiny","ends":{"other":{"seq":1,"hash":"' + b"a" * 64 + b'"}}}',
            b'{"task":"tiny","ends":{"tiny":{"seq":true,"hash":"' + b"a" * 64 + b'"}}}',
            b'{"task":"tiny","ends":{"tiny":{"seq":1}}}',
        ],
    )
    def test_what_is_none(self, content: Any) -> None:
        with pytest.raises(RegistryError, match="is no published head"):
            Head.parse("tiny", content)
