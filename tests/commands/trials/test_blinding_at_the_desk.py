"""What travels to the operator says nothing about the arms: not by words, not by sizes, not by times."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import mannwhitneyu

from tests.support import chromium
from tests.support.desks import MannedDesk, manned, short
from tests.support.trial_session_made import INVALID, RUBRIC
from tests.support.waiting import until
from vqbet.commands.trials.desk_client import DeskClient
from vqbet.evaluation.trials.trial_plan import CANDIDATE, CHAMPION

Sent = tuple[int, dict[str, Any], str]
TRIALS = 40
WORDS = ("candidate", "champion", 'arm"', "slot", "pair", "repeat", "digest", "commitment", "nonce", "statement")


class Traffic:
    """Everything that an operator's page has got, by trial. seconds: of each call, by verb and arm."""

    def __init__(self, desk: MannedDesk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.desk = desk
        self.bodies: list[str] = []
        self.sizes: dict[tuple[str, str], set[int]] = {}
        self.seconds: dict[tuple[str, str], list[float]] = {}
        real: Callable[..., Sent] = DeskClient._sent

        def sent(client: DeskClient, method: str, path: str, body: Mapping[str, Any] | None) -> Sent:
            began_s = time.perf_counter()
            answer = real(client, method, path, body)
            self._note(path, answer, time.perf_counter() - began_s)
            return answer

        monkeypatch.setattr(DeskClient, "_sent", sent)

    @property
    def verbs(self) -> set[str]:
        """Calls with their phases that both arms have met."""
        return {verb for verb, _ in self.sizes if {(verb, CANDIDATE), (verb, CHAMPION)} <= self.sizes.keys()}

    def _note(self, path: str, answer: Sent, seconds: float) -> None:
        said = dict(answer[1])
        self.bodies.append(json.dumps(answer[1]) + answer[2])
        arm = self._arm(said.get("trial", ""))
        if arm:
            for name in ("version", "condition", "done", "block", "elapsed_s", "last"):  # of the time, not of the arm
                said.pop(name, None)
            verb = f"{path.partition('?')[0]} {said['phase']}"
            self.sizes.setdefault((verb, arm), set()).add(len(json.dumps(said)))
            self.seconds.setdefault((verb, arm), []).append(seconds)

    def _arm(self, code: str) -> str:
        trial = self.desk.desk._session.progress.trials.get(code)
        return trial.slot.arm if trial else ""


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A whole session, in which one arm fails and the other one succeeds, with an undone and some invalid trials."""
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        manned(tmp_path_factory.mktemp("desk"), **short(TRIALS // 2)) as desk,
    ):
        until(lambda: not desk.state["server"])
        found = Traffic(desk, monkeypatch)
        for number in range(TRIALS):
            code = desk.begin()
            _ = desk.state
            desk.end(code)
            _ = desk.state
            if number % 9 == 8:
                desk.client.change("invalid", trial=code, reason=INVALID[0])
                continue
            arm = desk.desk._session.progress.trials[code].slot.arm
            stage = RUBRIC[-1 if arm == CANDIDATE else 0].name
            desk.client.change("grade", trial=code, stage=stage)
            if number == 3:
                desk.client.change("undo", trial=code)
                desk.client.change("grade", trial=code, stage=stage)
        desk.client.change("end")
        yield found


def test_no_word_names_an_arm(traffic: Traffic) -> None:
    made = traffic.desk.made
    secrets = [*made.plan.arms.values(), made.blinding.salt, made.plan.salt, made.key.public]
    for event in traffic.desk.events:
        if event.kind == "armed":
            secrets += [event["statement"]["commitment"], event["nonce"], event["signature"]]
            secrets += [made.blinding.key(event["trial"])]
    everything = "\n".join(traffic.bodies)
    assert len(traffic.bodies) > 3 * TRIALS
    for secret in secrets:
        assert secret not in everything
        assert secret[:8] not in everything
    for word in WORDS:
        assert word not in everything.replace("Exit", ""), word


def test_no_size_tells_the_arms(traffic: Traffic) -> None:
    assert {"/api/start armed", "/api/state running", "/api/state stopped"} <= traffic.verbs
    for verb in traffic.verbs:
        assert traffic.sizes[verb, CANDIDATE] == traffic.sizes[verb, CHAMPION], verb


def test_no_time_tells_the_arms(traffic: Traffic) -> None:
    """Rank test of the times of every answer; by chance it would fail once in some ten thousand runs."""
    for verb in traffic.verbs:
        one, two = (traffic.seconds[verb, arm] for arm in (CANDIDATE, CHAMPION))
        assert mannwhitneyu(one, two).pvalue > 1e-5, verb


def test_codes_do_not_repeat_or_sort(traffic: Traffic) -> None:
    trials = list(traffic.desk.desk._session.progress.trials.values())
    codes = [trial.code for trial in trials]
    assert len(set(codes)) == len(codes) == TRIALS
    for place in range(8):
        letters = {arm: {one.code[place] for one in trials if one.slot.arm == arm} for arm in (CANDIDATE, CHAMPION)}
        assert letters[CANDIDATE] & letters[CHAMPION], "no letter divides them"


def test_the_robot_hears_nothing_either(tmp_path: Path) -> None:
    with manned(tmp_path) as desk:
        said = []
        for _ in range(6):
            code = desk.start()
            said.append(desk.robot.asked("GET", "/robot/next?wait=1"))
            desk.robot.asked("POST", "/robot/began", {"trial": code})
            desk.end(code)
            desk.client.change("grade", trial=code, stage=RUBRIC[0].name)
        assert {tuple(sorted(one)) for one in said} == {("do", "operator", "seed", "server", "timeout_s", "trial")}
        for digest in desk.made.plan.arms.values():
            assert digest[:8] not in json.dumps(said)


@pytest.mark.slow
def test_nothing_in_the_browsers_storage_or_page(tmp_path: Path) -> None:
    with (
        manned(tmp_path) as desk,
        chromium.started(tmp_path) as browser,
        browser.page(desk.page) as page,
    ):
        until(lambda: page.run("document.body.dataset.phase") == "ready")
        for _ in range(3):
            desk.play()
        until(lambda: page.run("state.done") == 3)
        kept = page.run("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        shown = page.run("document.documentElement.outerHTML + JSON.stringify(state)")
        assert kept == '[{},{},""]'
        for secret in (*desk.made.plan.arms.values(), desk.made.blinding.salt):
            assert secret[:8] not in shown
        for word in WORDS:
            assert word not in shown, word


def test_the_log_is_for_nobody_before_unblinding(tmp_path: Path) -> None:
    """It holds slots; the files beside the salt are the desk's own, and no route leads to them."""
    with manned(tmp_path) as desk:
        desk.play()
        assert (desk.made.folder / "salt").stat().st_mode & 0o077 == 0
