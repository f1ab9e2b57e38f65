"""The operator's page in a real browser, at the size of a phone; the test plays the robot."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import chromium
from tests.support.chromium import Chromium, Page
from tests.support.desks import OPERATOR, MannedDesk, folder_of, manned, opened, served, short
from tests.support.trial_session_made import INVALID, RUBRIC, TAGS
from tests.support.waiting import until

pytestmark = pytest.mark.slow
WIDTH, HEIGHT = 390, 844
LAST = RUBRIC[-1].name


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium.started(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[MannedDesk]:
    with manned(tmp_path) as made:
        yield made


@pytest.fixture
def page(browser: Chromium, desk: MannedDesk) -> Iterator[Page]:
    with browser.page(desk.page) as shown:
        shown.size(WIDTH, HEIGHT)
        phase(shown, "ready")
        shown.run("localStorage.clear()")
        yield shown


def phase(page: Page, name: str) -> None:
    """Wait until the page shows a phase, and takes taps again."""
    until(lambda: page.run("document.body.dataset.phase") == name and page.run("!busy && Date.now() > settled"), 30)
    time.sleep(0.05)


def robot_begins(desk: MannedDesk) -> str:
    job = desk.robot.asked("GET", "/robot/next?wait=10")
    desk.robot.asked("POST", "/robot/began", {"trial": job["trial"]})
    return str(job["trial"])


def text(page: Page, selector: str) -> str:
    return str(page.run(f"document.querySelector({json.dumps(selector)}).innerText"))


def visible(page: Page, selector: str) -> bool:
    return bool(page.run(f"document.querySelector({json.dumps(selector)}).checkVisibility()"))


def test_a_trial_in_three_taps(desk: MannedDesk, page: Page) -> None:
    """Nothing has to be scrolled for them, and the whole page fits on the screen."""
    fits = "document.documentElement.scrollHeight <= innerHeight && document.documentElement.scrollWidth <= innerWidth"
    assert page.run("location.hash") == "", "the secret is taken out of the address"
    assert page.run("document.cookie") == "", "and is out of reach of scripts"
    assert page.run(fits)
    page.tap("#main")
    code = robot_begins(desk)
    phase(page, "running")
    assert text(page, "#code") == code
    assert page.run(fits)
    page.tap("#main")
    until(lambda: not desk.robot.asked("GET", f"/robot/running?trial={code}")["running"], 10)
    desk.end(code, by="operator")
    phase(page, "stopped")
    assert page.run(fits)
    page.tap(f"#stages button:nth-child({len(RUBRIC)})")
    phase(page, "ready")
    assert desk.kinds == ["opened", "armed", "started", "stopped", "graded"]
    assert (desk.events[-1]["stage"], desk.events[-1]["operator"]) == (LAST, OPERATOR)
    assert text(page, "#count") == "1 of 40"


def test_a_trial_that_the_robot_ends_in_two_taps(desk: MannedDesk, page: Page) -> None:
    page.tap("#main")
    desk.end(robot_begins(desk))
    phase(page, "stopped")
    assert text(page, "#text").startswith("The robot has ended it after 2.4 s")
    page.tap("#stages button:nth-child(1)")
    phase(page, "ready")
    assert desk.events[-1]["stage"] == RUBRIC[0].name


def test_buttons_are_large(desk: MannedDesk, page: Page) -> None:
    page.tap("#main")
    desk.end(robot_begins(desk))
    phase(page, "stopped")
    sizes = page.run(
        "[...document.querySelectorAll('button, textarea')].filter((one) => one.checkVisibility())"
        ".map((one) => one.getBoundingClientRect()).map((box) => Math.min(box.width, box.height))"
    )
    assert min(sizes) >= 44


def test_no_foreign_request_and_no_error(browser: Chromium, desk: MannedDesk) -> None:
    with browser.page(desk.page) as page:
        phase(page, "ready")
        desk.show(120)
        until(lambda: visible(page, "#live"), 10)
        page.tap("#main")
        desk.end(robot_begins(desk))
        phase(page, "stopped")
        loaded = page.run("performance.getEntriesByType('resource').map((one) => new URL(one.name).origin)")
        assert len(loaded) >= 8
        assert set(loaded) == {desk.url}
        blocked = page.run("fetch('http://pages.example/').then(() => 'let out', () => 'blocked')")
        assert blocked == "blocked"


def test_tag_and_remark_of_a_failure(desk: MannedDesk, page: Page) -> None:
    page.tap("#main")
    desk.end(robot_begins(desk))
    phase(page, "stopped")
    page.tap("#tags button:nth-child(2)")
    page.run("document.getElementById('remark').value = 'slipped u twice'")
    page.tap("#stages button:nth-child(2)")
    phase(page, "ready")
    said = desk.events[-1]
    assert (said["stage"], said["tag"], said["remark"]) == (RUBRIC[1].name, TAGS[1], "slipped u twice")
    page.tap("#main")
    desk.end(robot_begins(desk))
    phase(page, "stopped")
    assert page.run("document.getElementById('remark').value") == "", "of the trial before"
    assert page.run("document.querySelectorAll('[aria-pressed=true]').length") == 0
    page.tap("#tags button:nth-child(1)")
    page.tap(f"#stages button:nth-child({len(RUBRIC)})")
    phase(page, "ready")
    assert desk.events[-1]["tag"] == "", "a success has no tag"


def test_undo(desk: MannedDesk, page: Page) -> None:
    code = desk.play(RUBRIC[0].name)
    until(lambda: visible(page, "#undo"), 10)
    assert text(page, "#last") == f"Entered: {RUBRIC[0].name}"
    phase(page, "ready")
    page.tap("#undo-button")
    phase(page, "stopped")
    page.tap(f"#stages button:nth-child({len(RUBRIC)})")
    phase(page, "ready")
    outcomes = [event["stage"] for event in desk.events if event.kind == "graded"]
    assert outcomes == [RUBRIC[0].name, LAST]
    page.tap("#main")
    assert robot_begins(desk) != code
    phase(page, "running")
    assert not visible(page, "#undo"), "once the next trial has begun"


def test_invalid_with_a_reason(desk: MannedDesk, page: Page) -> None:
    page.tap("#main")
    code = robot_begins(desk)
    phase(page, "running")
    page.tap("#invalid")
    until(lambda: page.run("document.getElementById('why').open"), 10)
    reasons = page.run("[...document.querySelectorAll('#reasons button')].map((one) => one.innerText)")
    assert reasons == list(INVALID)
    page.run("document.getElementById('why-remark').value = 'a cat'")
    page.tap("#reasons button:nth-child(2)")
    phase(page, "ready")
    said = desk.events[-1]
    assert (said.kind, said["trial"], said["reason"], said["remark"]) == ("invalid", code, INVALID[1], "a cat")
    assert not desk.robot.asked("GET", f"/robot/running?trial={code}")["running"]


def test_keyboard(desk: MannedDesk, page: Page) -> None:
    page.press(" ")
    code = robot_begins(desk)
    phase(page, "running")
    page.press("Enter")
    until(lambda: desk.state["stopping"], 10)
    desk.end(code, by="operator")
    phase(page, "stopped")
    page.press(" ")
    assert desk.kinds[-1] == "stopped", "no stage is entered by the main key"
    page.press("3")
    phase(page, "ready")
    assert desk.events[-1]["stage"] == RUBRIC[2].name
    page.press("u")
    phase(page, "stopped")
    page.press("i")
    until(lambda: page.run("document.getElementById('why').open"), 10)
    page.press("4")
    assert desk.kinds[-1] == "undone", "behind a dialog nothing is entered"
    page.run("document.getElementById('why').close()")
    page.press("4")
    phase(page, "ready")
    page.press("p")
    phase(page, "paused")
    page.press(" ")
    phase(page, "ready")
    assert desk.kinds[-4:] == ["undone", "graded", "paused", "resumed"]


def test_keys_in_a_remark_enter_nothing(desk: MannedDesk, page: Page) -> None:
    page.tap("#main")
    desk.end(robot_begins(desk))
    phase(page, "stopped")
    page.tap("#remark")
    for key in ("3", "i", " ", "u"):
        page.press(key)
    assert page.run("document.getElementById('remark').value") == "3i u"
    assert desk.kinds[-1] == "stopped"


def test_a_pedal_is_bound_and_kept(desk: MannedDesk, page: Page) -> None:
    page.tap("#more")
    page.tap("#keys-open")
    until(lambda: page.run("document.getElementById('keys').open"), 10)
    page.tap("[data-action=main]")
    page.press("PageDown")
    assert text(page, "[data-action=main] kbd") == "PageDown"
    page.go(desk.url)
    phase(page, "ready")
    page.press(" ")
    time.sleep(0.3)
    assert desk.kinds == ["opened"], "the old key is free"
    page.press("PageDown")
    robot_begins(desk)
    phase(page, "running")


def test_a_pedal_that_bounces(desk: MannedDesk, page: Page) -> None:
    for _ in range(4):
        page.press(" ")
    code = robot_begins(desk)
    for _ in range(3):
        page.press(" ")
    phase(page, "running")
    assert desk.kinds == ["opened", "armed", "started"]
    assert desk.robot.asked("GET", f"/robot/running?trial={code}") == {"running": True}, (
        "the second press stops nothing"
    )


def test_a_reload_in_every_phase(desk: MannedDesk, page: Page) -> None:
    def again(name: str) -> None:
        page.go(desk.url)
        phase(page, name)

    again("ready")
    page.tap("#main")
    phase(page, "armed")
    again("armed")
    code = robot_begins(desk)
    phase(page, "running")
    again("running")
    desk.end(code)
    phase(page, "stopped")
    again("stopped")
    page.tap("#stages button:nth-child(1)")
    phase(page, "ready")
    again("ready")
    page.tap("#pause")
    phase(page, "paused")
    again("paused")
    assert desk.kinds == ["opened", "armed", "started", "stopped", "graded", "paused"]


def test_an_answer_that_was_lost(browser: Chromium, tmp_path: Path) -> None:
    """The desk is killed after it has written and before it answers; the page asks again, and it is there once."""
    made = folder_of(tmp_path)
    with served(made) as server:
        with opened(made, server) as desk:
            port, code = desk.port, desk.begin()
            desk.end(code)
            with browser.page(desk.page) as page:
                page.size(WIDTH, HEIGHT)
                phase(page, "stopped")
                page.run(
                    "window.kept = fetch; window.fetch = (path, ...rest) => path === '/api/grade' ? "
                    "kept(path, ...rest).then(() => { throw new TypeError('lost'); }) : kept(path, ...rest)"
                )
                page.tap("#stages button:nth-child(2)")
                until(lambda: desk.kinds[-1] == "graded", 10)
                until(lambda: page.run("sessionStorage.getItem('vqbet-pending')"), 10)
                page.go(desk.url)
                phase(page, "ready")
                until(lambda: not page.run("sessionStorage.getItem('vqbet-pending')"), 10)
        assert port
        with opened(made, server) as desk:
            assert desk.kinds.count("graded") == 1


def test_a_desk_that_is_started_again_under_an_open_page(browser: Chromium, tmp_path: Path) -> None:
    made = folder_of(tmp_path)
    with served(made) as server:
        with opened(made, server) as desk:
            port = desk.port
            shown = browser.page(desk.page)
            page = shown.__enter__()
            page.size(WIDTH, HEIGHT)
            phase(page, "ready")
        until(lambda: "cannot be reached" in text(page, "#notice"), 20)
        page.tap("#main")
        with opened(made, server, port=port) as desk:
            phase(page, "armed")
            assert desk.kinds == ["opened", "opened", "armed"], "the tap was kept, and done once"
            shown.__exit__(None, None, None)


def test_two_tabs(browser: Chromium, desk: MannedDesk, page: Page) -> None:
    """The second one enters with the cookie of the first; both show the same, and taps in both count once."""
    with browser.page(desk.url) as other:
        other.size(WIDTH, HEIGHT)
        phase(other, "ready")
        for one in (page, other):  # a tab behind another one gets no finger
            one.run("document.getElementById('main').click()")
        code = robot_begins(desk)
        phase(page, "running")
        phase(other, "running")
        desk.end(code)
        phase(page, "stopped")
        phase(other, "stopped")
        page.run("document.querySelector('#stages button:nth-child(1)').click()")
        other.run("document.querySelector('#stages button:nth-child(2)').click()")
        phase(page, "ready")
        phase(other, "ready")
    assert desk.kinds == ["opened", "armed", "started", "stopped", "graded"]


def test_the_wanted_picture_over_the_camera(desk: MannedDesk, page: Page) -> None:
    assert page.run("document.getElementById('wanted').naturalWidth") == 96
    assert not visible(page, "#fade"), "there is no camera yet"
    desk.show(60)
    until(lambda: visible(page, "#fade"), 10)
    read = "[...document.getElementById('live').getContext('2d').getImageData(5, 5, 1, 1).data]"
    assert page.run(read) == [60, 60, 60, 255]
    assert page.run("getComputedStyle(document.getElementById('wanted')).opacity") == "0.5"
    page.run("document.getElementById('opacity').value = 20")
    page.run("document.getElementById('opacity').dispatchEvent(new Event('input'))")
    assert page.run("getComputedStyle(document.getElementById('wanted')).opacity") == "0.2"
    desk.show(90)
    until(lambda: page.run(read) == [90, 90, 90, 255], 10)
    page.tap("#main")
    robot_begins(desk)
    phase(page, "running")
    assert not visible(page, "#wanted"), "a running trial shows the camera alone"


def test_what_is_missing_is_said(desk: MannedDesk, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqbet.commands.trials.desk.PRESENT_S", 0.2)
    until(lambda: text(page, "#notice") == "Robot arm-3 is not there.", 20)
    page.tap("#main")
    until(lambda: text(page, "#main").startswith("Waiting for the robot"), 10)
    code = robot_begins(desk)
    until(lambda: text(page, "#main").startswith("The robot is lost"), 10)
    phase(page, "running")
    page.tap("#main")
    phase(page, "stopped")
    assert text(page, "#title") == "This trial cannot count"
    page.tap("#main")
    until(lambda: page.run("document.getElementById('why').open"), 10)
    page.tap("#reasons button:nth-child(3)")
    phase(page, "ready")
    assert (desk.events[-1].kind, desk.events[-1]["trial"]) == ("invalid", code)


def test_the_end_of_a_session(browser: Chromium, tmp_path: Path) -> None:
    with manned(tmp_path, **short(1)) as desk, browser.page(desk.page) as page:
        page.size(WIDTH, HEIGHT)
        phase(page, "ready")
        for _ in range(2):
            page.tap("#main")
            desk.end(robot_begins(desk))
            phase(page, "stopped")
            page.tap("#stages button:nth-child(4)")
            phase(page, "ready")
        assert text(page, "#main").startswith("Finish")
        page.tap("#main")
        until(lambda: page.run("document.body.dataset.phase") == "closed", 10)
        assert text(page, "#title") == "The session is closed"
        assert "vqbet trials judge synthetic" in text(page, "#text")
        shown = page.run("[...document.querySelectorAll('button')].filter((one) => one.checkVisibility()).length")
        assert shown == 1, "only the menu is left"


def test_an_early_end_is_asked_twice(desk: MannedDesk, page: Page) -> None:
    page.tap("#more")
    page.tap("#end-open")
    until(lambda: page.run("document.getElementById('end').open"), 10)
    assert "cannot be opened again" in text(page, "#end")
    page.tap("#end-yes")
    until(lambda: page.run("document.body.dataset.phase") == "closed", 10)
    assert desk.events[-1]["why"] == "ended by the operator"


def test_a_stranger_sees_nothing(browser: Chromium, desk: MannedDesk) -> None:
    with browser.page(f"{desk.url}/#a-guess") as page:
        until(lambda: page.run("document.body.dataset.phase") == "outside", 10)
        assert text(page, "#title") == "Open the address that the desk has printed"
        assert not visible(page, "#main")
