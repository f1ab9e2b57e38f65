"""Who acts is the system's user or a key's holder; who trained a candidate may be barred from approving it."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.people import commit, repository
from tests.support.shelf import SPEC, proof, registered, verdict
from vqbet import bundle, registry
from vqbet.commands import release
from vqbet.contract import RegistryError
from vqbet.registry import approvals
from vqbet.signing import identity
from vqbet.stages import sealing
from vqbet.stages.paths import Paths

TASK = "blockpush"
ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def root(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a policy made of a tokenizer and a prior, and a verdict about it."""
    folder = repository(tmp_path / "project")
    monkeypatch.setenv("VQBET_PROJECT", str(folder))
    digest = bundle.write(
        Paths(folder, TASK).policy,
        kind="vqbet",
        spec=SPEC,
        arguments={},
        components={"prior": {"w": np.zeros(3, np.float32)}},
        provenance={"tokenizer": proof("tokenizer"), "prior": proof("prior")},
    )
    about = SimpleNamespace(outcome="PROMOTE", reason="better", candidate=digest, champion="")
    monkeypatch.setattr(sealing, "sealed", lambda *_: (proof("e1"), about))
    return folder


def as_user(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(identity.os, "getuid", lambda: number)


def trained(part: str, who: str, stage: str = "") -> None:
    tags = {"who": who} if who else {}
    with registry.run(TASK, stage or part, params={}, tags=tags) as run:
        run.tag("digest", proof(part))


def four_eyes(root: Path) -> None:
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("four_eyes: false", "four_eyes: true"))
    commit(root)  # what nobody committed asks for nothing


def test_one_user_under_two_names_is_one_person(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alice", "bob"):
        for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            monkeypatch.setenv(variable, name)
        assert release.approve(root, TASK, why="saw it")["by"] == ME
    with pytest.raises(RegistryError, match=f"of 2 different people, it has 1; {ME}'s holds until"):
        approvals.approved(TASK, proof("e1"), needed=2)
    as_user(monkeypatch, 54321)
    assert release.approve(root, TASK, why="saw it")["by"] == "uid 54321"
    assert len(approvals.approved(TASK, proof("e1"), needed=2)) == 2


def test_who_trained_it_does_not_approve_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained("tokenizer", "ann")
    trained("prior", ME)
    assert release.approve(root, TASK, why="mine, and good")["by"] == ME  # it is not asked for
    four_eyes(root)
    with pytest.raises(RegistryError, match=rf"{ME} trained candidate .*promotion\.four_eyes asks for"):
        release.approve(root, TASK, why="mine, and good")
    as_user(monkeypatch, 54321)
    assert release.approve(root, TASK, why="saw it")["by"] == "uid 54321"


def test_who_judged_it_may_approve_it(root: Path) -> None:
    trained("tokenizer", "ann")
    trained("prior", "ann")
    trained("prior", ME, stage="gate")
    four_eyes(root)
    assert release.approve(root, TASK, why="saw it")["by"] == ME


def test_where_nobody_knows_who_trained_it_nobody_approves(root: Path) -> None:
    trained("tokenizer", "ann")
    trained("prior", "")
    four_eyes(root)
    with pytest.raises(
        RegistryError, match=r"no run here says who trained prior [0-9a-f]{12}.*dvc repro --force prior@"
    ):
        release.approve(root, TASK, why="saw it")


def test_an_approval_by_the_trainer_does_not_count(home: Path, tmp_path: Path) -> None:
    [(one, first)] = registered(tmp_path, "one")
    registry.approve("tiny", proof("e1"), who="ann", why="mine", hours=1)

    def promote() -> registry.LedgerEntry:
        return registry.promote(
            "tiny",
            one,
            verdict=verdict(first),
            evidence=proof("e1"),
            who="ann",
            why="w",
            approvals=1,
            barred={"ann"},
        )

    with pytest.raises(RegistryError, match="it has 0; ann's does not count, for ann trained the candidate"):
        promote()
    registry.approve("tiny", proof("e1"), who="bob", why="saw it", hours=1)
    assert promote().approved == "bob"


def test_a_digest_that_is_none(home: Path) -> None:
    with pytest.raises(RegistryError, match='expected the digest of a bundle, got "x\' or"'):
        registry.trainers("tiny", "x' or")
