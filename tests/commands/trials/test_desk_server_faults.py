"""A desk whose policy server is wrong, or dies in a trial: no sentence names a policy, and no policy gets the blame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.trial_server import DESK_TOKEN, GOOD, POOR, served_arms, server_key, trial_server
from tests.support.trials import SALT, judged, planned
from vqbet.commands.trials import script, web
from vqbet.commands.trials.desk import Desk
from vqbet.commands.trials.desk_client import DeskClient
from vqbet.commands.trials.desk_doors import DeskKeys
from vqbet.commands.trials.desk_orders import Lines, ordered, unfit, veiled
from vqbet.commands.trials.desk_secrets import NAME, DeskSecrets
from vqbet.commands.trials.web import Door
from vqbet.contract import GateError, ServingError
from vqbet.evaluation.trials.blinding import Blinding
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.evaluation.trials.trial_progress import upcoming
from vqbet.serving.trial_line import Arms, TrialLine

REPORT = {
    "steps": 8, "duration_s": 0.8, "holds": 2, "interventions": 0, "recording": {"number": 1, "digest": "a" * 64},
    "seen": {"score": 0.9, "success": False},
}  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path) -> TrialPlan:
    made = judged(world="robot:arm-3", machine="arm-3")
    return replace(planned(), robot="arm-3", judged=made, server_key=server_key(tmp_path).public)


@pytest.fixture
def folder(tmp_path: Path, plan: TrialPlan) -> TrialFolder:
    made = TrialFolder(tmp_path / "session")
    made.keep(plan, SALT)
    return made


@contextmanager
def desk_at(folder: TrialFolder, url: str) -> Iterator[Desk]:
    lines = Lines(url, TrialLine(url, DESK_TOKEN), TrialLine(url, DESK_TOKEN, timeout_s=2.0))
    with Desk(folder, lines, operator="Ada", user="ada") as desk:
        desk.hello("arm-3", simulated=True)
        yield desk


def begun(desk: Desk, number: int) -> str:
    """Bring the next trial to the robot, and return its code."""
    code = str(desk.state()["trial"])
    desk.start(f"start {number}", code)
    assert desk.next()["trial"] == code
    desk.began(code)
    return code


@dataclass
class Telling:
    """A server that has other policies, or refuses in words that name some."""

    plan: TrialPlan
    digests: tuple[str, ...]
    orders: int = 0

    def arms(self) -> Arms:
        spec = served_arms()[0].handshake.spec
        return Arms(self.digests, self.plan.server_key, spec, self.plan.sha256)

    def arm(self, *, digest: str, **_: str) -> Any:
        self.orders += 1
        raise ServingError(f"plan {self.plan.sha256[:12]}: digest {digest!r} is not loaded, nor {digest[:12]}")

    def close(self) -> None:
        return


@pytest.mark.parametrize("held", [(GOOD,), (POOR,), (GOOD, "e" * 64), ()])
def test_a_server_without_an_arm_is_refused_for_every_trial_alike(plan: TrialPlan, held: tuple[str, ...]) -> None:
    """Else it would refuse the trials of one arm only, and tell which they are."""
    blinding, server, said = Blinding(plan, SALT), Telling(plan, held), set()
    for slot in blinding.slots:
        trial = upcoming(blinding, {})
        assert trial is not None
        with pytest.raises(ServingError) as caught:
            ordered(plan, blinding, replace(trial, slot=slot), server)
        said.add(str(caught.value))
    assert len(said) == 1
    assert said == {unfit(plan, server.arms())}
    assert not server.orders


def test_a_refusal_names_no_policy(plan: TrialPlan) -> None:
    blinding = Blinding(plan, SALT)
    trial = upcoming(blinding, {})
    assert trial is not None
    said = set()
    for slot in blinding.slots:
        with pytest.raises(ServingError) as caught:
            ordered(plan, blinding, replace(trial, slot=slot), Telling(plan, (GOOD, POOR)))
        said.add(str(caught.value))
        assert caught.value.__cause__ is None
    assert said == {f"plan {plan.sha256[:12]}: digest '...' is not loaded, nor ..."}


def test_a_veil_leaves_what_names_no_policy(plan: TrialPlan) -> None:
    with pytest.raises(ServingError, match=r"^policy server ws://desk:8000/desk: refused$"), veiled(plan):
        raise ServingError("policy server ws://desk:8000/desk: refused")


def test_a_real_server_with_one_arm(tmp_path: Path, plan: TrialPlan, folder: TrialFolder) -> None:
    key = server_key(tmp_path)
    with trial_server(plan.sha256, (GOOD,), robot="arm-3", key=key) as server, desk_at(folder, server.url) as desk:
        with pytest.raises(ServingError, match="the server has other policies than the plan") as caught:
            desk.start("start", desk.state()["trial"])
        assert desk.state()["phase"] == "ready"
    assert not [digest for digest in (GOOD, POOR) if digest[:12] in str(caught.value)]
    assert '"armed"' not in folder.log.read_text()


def test_a_trial_whose_server_dies_is_lost_and_no_failure(tmp_path: Path, plan: TrialPlan, folder: TrialFolder) -> None:
    with ExitStack() as alive:
        server = alive.enter_context(trial_server(plan.sha256, robot="arm-3", key=server_key(tmp_path)))
        with desk_at(folder, server.url) as desk:
            first = begun(desk, 1)
            desk.ended(first, {"by": "guard", **REPORT})
            assert desk.state()["ended"]["by"] == "guard", "the server is there: the guard has refused the policy"
            desk.grade("grade 1", first, stage="nothing")
            second = begun(desk, 2)
            alive.close()
            desk.ended(second, {"by": "guard", **REPORT})
            ended = desk.state()["ended"]
            assert (ended["by"], ended["counts"]) == ("lost", False)
            with pytest.raises(GateError, match="the connection was lost, which says nothing of the policy"):
                desk.grade("grade 2", second, stage="nothing")
            enter_by_script(desk, second)
            assert desk.state()["last"]["state"] == "invalid"
    assert folder.read().progress.trials[first].state == "graded"


def enter_by_script(desk: Desk, code: str) -> None:
    """Let the scripted operator go on until it has entered what became of a trial."""
    keys = DeskKeys("page", "robot", desk.plan.sha256)
    with web.listening(web.app(desk, keys, host="127.0.0.1"), Door(port=0)) as port:
        client = DeskClient(port, "page")
        script.run(desk.plan, client, lambda done, most: None, left=lambda: desk.state()["last"]["trial"] == code)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_salt_that_others_can_read_or_write(folder: TrialFolder, mode: int) -> None:
    folder.salt.chmod(mode)
    with pytest.raises(GateError, match=f"mode 0600, got mode {mode:04o}; whoever read it may know the policies"):
        desk_at(folder, "ws://127.0.0.1:1").__enter__()
    folder.salt.chmod(0o600)
    with desk_at(folder, "ws://127.0.0.1:1") as desk:  # the log is free again
        assert desk.state()["phase"] == "ready"


def test_a_salt_behind_a_link(tmp_path: Path, folder: TrialFolder) -> None:
    folder.salt.rename(tmp_path / "elsewhere")
    folder.salt.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GateError, match="expected a plain file of this user"):
        desk_at(folder, "ws://127.0.0.1:1").__enter__()


def test_secrets_that_others_can_read(folder: TrialFolder) -> None:
    made = DeskSecrets.read(folder.path, {})
    assert DeskSecrets.read(folder.path, {}) == made
    (folder.path / NAME).chmod(0o644)
    with pytest.raises(GateError, match=r"desk.json: expected a plain file of this user, mode 0600, got mode 0644"):
        DeskSecrets.read(folder.path, {})


def test_an_arm_alone_needs_its_server_too(plan: TrialPlan) -> None:
    alone = replace(plan, judged=replace(plan.judged, champion=""))
    assert unfit(alone, Telling(alone, (alone.judged.candidate,)).arms()) == ""
