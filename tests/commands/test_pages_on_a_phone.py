"""Every page that vqbet writes, in a real browser at the size of a phone: nothing sticks out, nothing complains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.commands.test_look import seen
from tests.demos.test_validate import BOUNDS
from tests.drift.test_drift_compare import NEW, OLD, compared, moved
from tests.evaluation.test_report import TRACKS, files
from tests.support import chromium
from tests.support.chromium import Chromium, Page
from tests.support.synthetic import synthetic
from vqbet.commands import look, status
from vqbet.commands.status import Costs, FlowRun, Robot, Status, TaskStatus
from vqbet.demos import store
from vqbet.demos.validation import validate
from vqbet.demos.validation.knowledge import Knowledge
from vqbet.drift import page as drift_page
from vqbet.evaluation import report
from vqbet.registry import LedgerEntry, Version
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

__all__ = ["files"]  # a fixture
pytestmark = pytest.mark.slow
WIDTH, HEIGHT = 390, 844
WIDE = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"  # a phone zooms out: no innerWidth
LONG = "a_joint_with_a_very_long_name_" * 5


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium.started(tmp_path_factory.mktemp("browser")) as running:
        yield running


def opened(page: Page, path: Path) -> list[str]:
    """Return what is wrong with a page on a phone."""
    page.go(path.as_uri())
    wrong = list(page.complaints)
    page.complaints.clear()
    if (wide := page.run(WIDE)) > WIDTH:
        wrong.append(f"as wide as {wide} px")
    if not page.run("[...document.images].every(one => one.complete && one.naturalWidth > 0)"):
        wrong.append("a picture is missing")
    return wrong


def written(root: Path, files: Path) -> dict[str, Path]:
    """Write every page; return their paths by name."""
    demos = seen(synthetic(4))
    store.write(Paths(root, "synthetic").store, demos)
    validate.write(validate.validate(demos, Knowledge(), **BOUNDS), root / "validation")
    drift = root / "drift.html"
    drift.write_text(drift_page.render(compared(OLD, moved(NEW, 3, by=2.0)).to_json()), encoding="utf-8")
    return {
        "status": status.write(root, told()),
        "validation": root / "validation" / "index.html",
        "look": look.run(root, "synthetic", 1, Watch()),
        "drift": drift,
        "report": report.write(
            files / "report", task="table", inputs=report.ReportInputs(files, TRACKS, {"data": LONG})
        ),
    }


def told() -> Status:
    """A state in which everything is long."""
    digest = "ab" * 32
    entry = LedgerEntry(
        seq=1, task="arm", action="promote", version=12, digest=digest, evidence=digest, who=LONG, why=LONG,
        when="2026-05-01T14:30:00+00:00", previous_version=0, previous_digest="",
    )  # fmt: skip
    one = TaskStatus(
        "arm",
        Version("arm", 12, digest),
        entry,
        waits=[LONG],
        drift=LONG,
        drifted=True,
        robots=[Robot(LONG, digest, "2026-05-01", LONG)],
        costs=Costs(1.0, 2.0, 3, 4, 5.0),
        verdict=f"PROMOTE for {digest}",
        pages={"evaluation report": f"https://mlflow.lab/#/experiments/1/runs/{digest}/artifacts/index.html"},
        wrong=[LONG],
    )
    run = FlowRun(LONG, "pipeline", "Running", "2026-05-01T14:30:00Z", f"https://prefect.lab/runs/flow-run/{digest}")
    return Status(LONG, [one, replace(one, task="other", entry=None)], [run])


def test_every_page_fits_a_phone_and_complains_of_nothing(browser: Chromium, files: Path, tmp_path: Path) -> None:
    pages = written(tmp_path, files)
    with browser.page("about:blank#") as page:
        page.size(WIDTH, HEIGHT)
        page.listen()
        wrong = {name: said for name, path in pages.items() if (said := opened(page, path))}
        assert page.run("document.querySelector('h1').innerText")
    assert not wrong


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ("<p style='width: 500px'>wide</p>", "as wide as"),
        ("<img src='no.png'>", "no.png"),
        ("<script>console.error('broken')</script>", "broken"),
        ("<script>nothing.here()</script>", "nothing is not defined"),
    ],
)
def test_a_planted_fault_is_seen(browser: Chromium, tmp_path: Path, planted: str, said: str) -> None:
    (tmp_path / "page.html").write_text(
        f"<!doctype html><meta name=viewport content='width=device-width, initial-scale=1'><h1>x</h1>{planted}"
    )
    with browser.page("about:blank#") as page:
        page.size(WIDTH, HEIGHT)
        page.listen()
        assert any(said in one for one in opened(page, tmp_path / "page.html"))
