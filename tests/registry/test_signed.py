"""Links signed by trusted people, and every way of not being one: a planted fault for each."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.people import commit, person, repository, trusted
from tests.support.shelf import proof, registered, verdict
from vqbet import registry, signing
from vqbet.commands import audit, keys, release
from vqbet.contract import RegistryError
from vqbet.files import canonical
from vqbet.registry import LedgerEntry, approvals, chain, seals
from vqbet.stages.progress import Watch

Act = Callable[[str], None]


@pytest.fixture
def root(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose committed trust file lets ann promote, bob and cleo approve, and robo judge."""
    folder = repository(tmp_path / "project")
    monkeypatch.setenv("VQBET_PROJECT", str(folder))
    for name, role in (("ann", "promote"), ("bob", "approve"), ("cleo", "approve"), ("robo", "judge")):
        person(folder, name, role)
    person(folder, "eve")
    commit(folder)
    return folder


@pytest.fixture
def act(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Act:
    """Act with somebody's key, or with none."""

    def become(name: str) -> None:
        if name:
            monkeypatch.setenv("VQBET_KEY", str(tmp_path / f"{name}.pem"))
        else:
            monkeypatch.delenv("VQBET_KEY", raising=False)

    return become


def promote(version: int, digest: str, champion: str = "", *, who: str = "", needed: int = 0) -> LedgerEntry:
    return registry.promote(
        "tiny",
        version,
        verdict=verdict(digest, champion),
        evidence=proof(f"e{version}"),
        who=who or signing.who(),
        why="w",
        approvals=needed,
    )


def approve(who: str = "") -> None:
    registry.approve("tiny", proof("e1"), who=who or signing.who(), why="saw it", hours=1)


def rows(home: Path, name: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(home / "ledger.db")) as database:
        found = database.execute("SELECT line FROM vqbet_ledger WHERE chain = ? ORDER BY number", (name,))
        return [json.loads(line) for (line,) in found]


def written(home: Path, name: str, links: list[dict[str, Any]]) -> None:
    """The chain written anew by somebody who writes the database, every hash recomputed."""
    before = ""
    with closing(sqlite3.connect(home / "ledger.db")) as database, database:
        database.execute("DELETE FROM vqbet_ledger WHERE chain = ?", (name,))
        for number, link in enumerate(links, start=1):
            link |= {"prev": before, "seq": number}
            link["hash"] = before = chain._hash(link)
            line = canonical.line(link, ascii=False)
            database.execute("INSERT INTO vqbet_ledger VALUES (?, ?, ?)", (name, number, line))


class TestAccepted:
    def test_the_whole_story_signed(self, root: Path, tmp_path: Path, act: Act) -> None:
        (one, first), (two, second) = registered(tmp_path, "one", "two")
        for name in ("bob", "cleo"):
            act(name)
            approve()
        act("ann")
        entry = promote(one, first, needed=2)
        assert (entry.who, entry.approved) == ("ann", "bob, cleo")
        promote(two, second, first)
        registry.rollback("tiny", why="it dropped a cup", who=signing.who())
        act("robo")
        link = chain.append("tiny.attempts", {"plan": proof("p")}, [])
        act("")
        assert registry.signers("tiny", registry.history("tiny")) == ["ann"] * 3
        assert registry.signed_by("tiny.attempts", link) == "robo"
        assert registry.signed_by("tiny", link) == "unsigned"
        assert "signed by ann" in registry.show(f"tiny/{one}")["ledger 1"]

    def test_who_may(self, root: Path, act: Act) -> None:
        assert not registry.may("judge")
        act("robo")
        assert registry.may("judge")
        assert not registry.may("promote")
        act("eve")
        assert not registry.may("judge")

    @pytest.mark.usefixtures("home")
    def test_a_key_without_a_trust_file_signs_for_later(
        self, tmp_path: Path, act: Act, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = repository(tmp_path / "project")
        monkeypatch.setenv("VQBET_PROJECT", str(root))
        person(root, "ann")
        act("ann")
        [(one, first)] = registered(tmp_path, "one")
        promote(one, first, who="ann")
        assert registry.signers("tiny", registry.history("tiny")) == ["unsigned"]
        key = signing.configured()
        assert key is not None
        trusted(root, "ann", key, "promote")
        commit(root)
        assert registry.signers("tiny", registry.history("tiny")) == ["ann"]


class TestNotWritten:
    @pytest.mark.parametrize(
        ("name", "says"),
        [
            (
                "",
                "the new entry is unsigned; infra/trust.yaml asks for the signature of somebody with the role promote",
            ),
            ("eve", "is signed with key [0-9a-f]{12}, which is nobody's"),
            ("bob", "is signed by bob, who may approve; "),
        ],
    )
    def test_a_promotion_by_somebody_else(self, root: Path, tmp_path: Path, act: Act, name: str, says: str) -> None:
        [(one, first)] = registered(tmp_path, "one")
        act(name)
        for way in (promote, lambda version, _: registry.force("tiny", version, who=signing.who(), why="w")):
            with pytest.raises(RegistryError, match=says):
                way(one, first)
        assert registry.history("tiny") == []
        assert registry.champion("tiny") is None

    def test_an_approval_under_another_name(self, root: Path, act: Act) -> None:
        act("bob")
        approve()
        with pytest.raises(RegistryError, match="names 'cleo' and is signed by bob"):
            approve("cleo")
        with pytest.raises(RegistryError, match="the approval of 2 different people, it has 1"):
            approvals.approved("tiny", proof("e1"), needed=2)

    def test_an_uncommitted_trust_file(self, root: Path, tmp_path: Path, act: Act) -> None:
        [(one, first)] = registered(tmp_path, "one")
        act("eve")
        key = signing.configured()
        assert key is not None
        trusted(root, "eve", key, "promote")
        with pytest.raises(RegistryError, match=r"nobody's.*the working copy differs from the committed one"):
            promote(one, first)
        commit(root)
        assert promote(one, first).who == "eve"


class TestRefused:
    """Somebody writes the database, recomputes every hash and sets the head; the readers see it."""

    @pytest.fixture
    def story(self, root: Path, tmp_path: Path, act: Act) -> list[tuple[int, str]]:
        found = registered(tmp_path, "one", "two", "three")
        act("ann")
        promote(*found[0])
        promote(*found[1], found[0][1])
        return found

    def refusals(self, home: Path, links: list[dict[str, Any]]) -> list[str]:
        """Return what everything that reads the chain says of these links; it fails where one of them accepts them."""
        written(home, "tiny", links)
        versions = {"version": 3, "digest": proof("x")}
        said = []
        for read in (
            lambda: registry.history("tiny"),
            lambda: registry.show("tiny/1"),
            lambda: promote(versions["version"], str(versions["digest"])),
            lambda: registry.rollback("tiny", why="w", who="ann"),
            lambda: registry.repair("tiny"),
        ):
            with pytest.raises(RegistryError) as caught:
                read()
            said.append(str(caught.value))
        return said

    @pytest.mark.slow
    @pytest.mark.usefixtures("story")
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"who": "bob"}, "entry 2: has a signature that is not of this content in this place by ann"),
            ({"why": "another reason"}, "entry 2: has a signature that is not of this content"),
            ({"when": "2026-05-05T00:00:00+00:00"}, "entry 2: has a signature that is not of this content"),
            ({"action": "force", "evidence": ""}, "entry 2: has a signature that is not of this content"),
            ({"signature": "A" * 86 + "=="}, "entry 2: has a signature that is not of this content"),
            ({"signature": 5}, "entry 2: has a signature that is not of this content"),
            ({"key": "0" * 64}, "entry 2: is signed with key 000000000000, which is nobody's"),
            ({"key": 7}, "entry 2: is signed with key 7, which is nobody's"),
        ],
    )
    def test_content_of_a_signed_link(self, home: Path, change: dict[str, Any], says: str) -> None:
        links = rows(home, "tiny")
        links[1] |= change
        assert all(says in said for said in self.refusals(home, links))

    @pytest.mark.usefixtures("story")
    def test_a_link_without_its_signature(self, home: Path) -> None:
        links = rows(home, "tiny")
        del links[1]["key"], links[1]["signature"]
        assert all("entry 2: is unsigned; infra/trust.yaml asks for" in said for said in self.refusals(home, links))

    @pytest.mark.usefixtures("story")
    def test_a_link_of_another_place(self, home: Path) -> None:
        links = rows(home, "tiny")
        assert all(
            "entry 1: has a signature that is not of this content in this place" in said
            for said in self.refusals(home, [links[1]])
        )

    def test_a_link_of_another_tasks_chain(self, home: Path, story: list[tuple[int, str]]) -> None:
        written(home, "other", rows(home, "tiny"))
        assert rows(home, "other")[0]["signature"] == rows(home, "tiny")[0]["signature"]
        with pytest.raises(RegistryError, match="other, entry 1: has a signature that is not of this content in this"):
            registry.history("other")

    @pytest.mark.usefixtures("story")
    def test_an_approval_by_somebody_who_may_not(self, root: Path, home: Path, act: Act) -> None:
        act("bob")
        approve()
        act("ann")
        (link,) = rows(home, "tiny.approvals")
        content = {name: link[name] for name in ("task", "evidence", "why", "when", "until")}
        forged = seals.sealed("tiny.approvals", {**content, "who": "ann", "seq": 2, "prev": link["hash"]})
        written(home, "tiny.approvals", [link, forged])
        with pytest.raises(RegistryError, match="entry 2: is signed by ann, who may promote;"):
            approvals.approved("tiny", proof("e1"), needed=2)

    @pytest.mark.usefixtures("story")
    def test_a_role_that_was_taken_away(self, root: Path, act: Act) -> None:
        key = signing.configured()
        assert key is not None
        trusted(root, "ann", key, "approve")
        assert len(registry.history("tiny")) == 2
        commit(root)
        with pytest.raises(RegistryError, match="entry 1: is signed by ann, who may approve"):
            registry.history("tiny")


class TestAdopted:
    """Entries from before there were keys: accepted up to a pinned one, and none after it."""

    @pytest.fixture
    def adopted(self, home: Path, tmp_path: Path, act: Act, monkeypatch: pytest.MonkeyPatch) -> Path:
        root = repository(tmp_path / "project")
        monkeypatch.setenv("VQBET_PROJECT", str(root))
        (one, first), (two, second), _ = registered(tmp_path, "one", "two", "three")
        promote(one, first)
        promote(two, second, first)
        person(root, "ann", "promote")
        keys.adopt(root, "tiny")
        commit(root)
        return root

    def test_old_ones_hold_and_new_ones_are_signed(self, adopted: Path, tmp_path: Path, act: Act) -> None:
        three, digest = 3, registry.resolve("tiny/3").digest
        with pytest.raises(RegistryError, match="the new entry is unsigned"):
            promote(three, digest, registry.history("tiny")[-1].digest)
        act("ann")
        promote(three, digest, registry.history("tiny")[-1].digest)
        assert registry.signers("tiny", registry.history("tiny")) == ["unsigned", "unsigned", "ann"]

    @pytest.mark.usefixtures("adopted")
    def test_nothing_unsigned_after_adoption(self, home: Path) -> None:
        links = rows(home, "tiny")
        written(home, "tiny", [*links, {**links[0], "previous_version": 2, "previous_digest": links[1]["digest"]}])
        with pytest.raises(RegistryError, match="entry 3: is unsigned"):
            registry.history("tiny")

    @pytest.mark.usefixtures("adopted")
    def test_nothing_else_before_it(self, home: Path) -> None:
        links = rows(home, "tiny")
        links[0]["who"] = "eve"
        written(home, "tiny", links)
        with pytest.raises(RegistryError, match=r"entry 2: is not the entry that infra/trust.yaml pins"):
            registry.history("tiny")

    @pytest.mark.usefixtures("adopted")
    def test_the_pinned_ones_may_not_go(self, home: Path) -> None:
        written(home, "tiny", rows(home, "tiny")[:1])
        with pytest.raises(RegistryError, match=r"there are 1 entries, infra/trust.yaml pins entry 2"):
            registry.history("tiny")

    @pytest.mark.slow
    def test_it_is_said_where_it_matters(self, adopted: Path, tmp_path: Path, act: Act) -> None:
        act("ann")
        promote(3, registry.resolve("tiny/3").digest, registry.history("tiny")[-1].digest)
        assert [entry["signed by"] for entry in release.history("tiny")] == ["nobody: unsigned"] * 2 + ["ann"]
        assert registry.show("tiny/1")["ledger 1"].endswith("; unsigned")
        found = {one.what: one for one in audit.run(adopted, "tiny", Watch(), repair=False)}
        assert found["signatures"].note == "2 of 3 entries are unsigned, from before infra/trust.yaml was adopted"
        (adopted / signing.FILE).write_text("keys: []\n")
        found = {one.what: one for one in audit.run(adopted, "tiny", Watch(), repair=False)}
        assert "the working copy differs from the committed one" in found["signatures"].note

    @pytest.mark.slow
    def test_an_audit_names_every_link_that_is_not_trusted(self, adopted: Path, home: Path, act: Act) -> None:
        act("ann")
        promote(3, registry.resolve("tiny/3").digest, registry.history("tiny")[-1].digest)
        links = rows(home, "tiny")
        forged = [{**links[2], "who": "eve"}, {**links[0], "action": "force"}]
        written(home, "tiny", [*links[:2], *forged])
        found = {one.what: one.wrong for one in audit.run(adopted, "tiny", Watch(), repair=False)}
        assert "has a signature that is not of this content" in found["ledger, entry 3"]
        assert "is unsigned" in found["ledger, entry 4"]

    def test_adopting_again_takes_nothing_unsigned(self, adopted: Path, home: Path, act: Act) -> None:
        links = rows(home, "tiny")
        forged = {**links[0], "previous_version": 2, "previous_digest": links[1]["digest"], "evidence": proof("x")}
        written(home, "tiny", [*links, forged])
        with pytest.raises(RegistryError, match="entry 3: is unsigned"):
            keys.adopt(adopted, "tiny")
        written(home, "tiny", links)
        act("ann")
        promote(3, registry.resolve("tiny/3").digest, links[1]["digest"])
        assert "up to entry 3" in keys.adopt(adopted, "tiny")["tiny"]

    def test_there_is_something_to_adopt(self, root: Path) -> None:
        with pytest.raises(RegistryError, match="nothing was written about it yet"):
            keys.adopt(root, "tiny")
