"""The page of a session: what it says, that equal files give equal bytes, that it loads nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.support import chromium
from tests.support.once import once
from tests.support.trial_session_made import INVALID, NOTHING, Story, judged, made
from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import gate
from vqbet.evaluation.trials import session_page, trial_films, trial_log, trial_session
from vqbet.evaluation.trials.blinding import Blinding
from vqbet.evaluation.trials.session_page import UnblindedSession
from vqbet.evaluation.trials.trial_plan import CANDIDATE, CHAMPION, Condition, Grade, TrialPlan
from vqbet.files import canonical

FUSED = {"confidence": 0.95, "metric": "success", "difference": 0.12, "low": -0.02, "high": 0.24}


def _evidence(session: Path, folder: Path, **summary: object) -> Path:
    """Write the evidence of a closed session, as the gate keeps it, as far as the page reads it."""
    (folder / "trials").mkdir(parents=True)
    for name in ("plan.json", "session.jsonl", "salt"):
        shutil.copy(session / name, folder / "trials")
    plan = TrialPlan.read(session / "plan.json")
    blinding = Blinding(plan, bytes.fromhex((session / "salt").read_text()))
    progress = trial_session.progress(plan, blinding, trial_log.read(session / "session.jsonl"))
    found = [
        EpisodeRecord(
            world=plan.judged.world,
            policy=trial.slot.arm,
            digest=plan.arms[trial.slot.arm],
            plan=plan.plan.sha256,
            seed=plan.judged.first_seed + trial.slot.pair,
            steps=trial.stopped["steps"],
            success=plan.grade(trial.stage).credit == 1.0,
            score=plan.grade(trial.stage).credit,
            mode="",
            slice="all",
            machine=plan.robot,
            metrics={},
        )
        for trial in progress.trials.values()
        if trial.state == "graded"
    ]
    gate.write(folder / "verdict.json", gate.decide(plan.plan, gate.by_policy(found)))
    said = {"irregularities": [], "fused": None, "cost": {}, **summary}
    (folder / "trials" / "summary.json").write_text(canonical.document(said))
    return folder


@pytest.fixture(scope="session")
def whole_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with session/ and evidence/, to be copied."""

    def make(folder: Path) -> None:
        made(folder / "session")
        sentences = ["trial 21 was armed twice", "<b>2</b> operators"]
        _evidence(folder / "session", folder / "evidence", irregularities=sentences, fused=FUSED)

    return once(tmp_path_factory, "trials", make)


@pytest.fixture
def whole(whole_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_once, tmp_path / "whole"))


def _page(whole: Path, *, filmed: bool = True) -> str:
    recordings = whole / "session" / "recordings" if filmed else None
    return session_page.write(whole / "evidence", whole / "page", recordings=recordings).read_text(encoding="utf-8")


class _Loaded(HTMLParser):
    """Everything in a page that names another resource."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "poster", "data")]


@pytest.mark.slow
def test_the_page_says_what_happened(whole: Path) -> None:
    page = _page(whole)
    session = UnblindedSession.read(whole / "evidence")
    verdict = session.verdict
    assert f'<span class="badge good">{verdict["outcome"]}</span>' in page
    for words in (
        "After 20 pairs, not worse than champion passed", "decided after 20 of 20 pairs", "block 4",
        "42: 40 valid, 2 invalid", "1.6 minutes in motion", *INVALID, "arm lost its power", "furthest stage reached",
        "Trial 21 was armed twice", "&lt;b&gt;2&lt;/b&gt; operators", "+0.120", "not known", "missed the block",
        session.plan.sha256, verdict["plan"], "ada (account lab)", "no tag", session.plan.server_key,
    ):  # fmt: skip
        assert words in page, words
    for arm, digest in session.plan.arms.items():
        row = page[page.index(f"<b>{arm}</b>") :]
        row = row[: row.index("</tr>")]
        assert digest[:12] in row
        assert f"{100 * verdict['numbers'][arm]['success']:.1f} %" in row
        assert f"{verdict['numbers'][arm]['score']:.3f}" in row


@pytest.mark.slow
def test_every_trial_has_a_mark_and_a_way_back_to_its_proof(whole: Path) -> None:
    page = _page(whole)
    session = UnblindedSession.read(whole / "evidence")
    assert (len(session.graded), len(session.invalid)) == (40, 2)
    for number, trial in enumerate(session.trials, start=1):
        said = f"trial {number}, {trial.code}: {trial.slot.arm}, pair {trial.slot.pair + 1}, "
        assert f"<title>{said}{trial.stage or f'invalid: {trial.reason}'}" in page
        row = page[page.index(f'<td class="code">{trial.code}</td>') :]
        row = row[: row.index("</tr>")]
        assert f'title="{trial.armed["statement"]["commitment"]}"' in row
        assert f'title="{trial.armed["signature"]}"' in row
        assert f'<td class="number">{trial.outcome.seq}</td>' in row
        recording = trial.stopped["recording"]
        assert (f'title="{recording["digest"]}"' in row) if recording else ("none" in row)


@pytest.mark.slow
def test_stages_and_tags_are_counted_by_arm(whole: Path) -> None:
    session = UnblindedSession.read(whole / "evidence")
    reached = session_page.reached(session)
    assert {arm: sum(counts.values()) for arm, counts in reached.items()} == {CANDIDATE: 20, CHAMPION: 20}
    played = session.verdict["numbers"]
    assert {arm: counts["placed"] / 20 for arm, counts in reached.items()} == {
        arm: played[arm]["success"] for arm in reached
    }
    page = _page(whole)
    for arm, counts in reached.items():
        for stage, count in counts.items():
            assert (f'title="{arm}: {stage}, {count} trials"' in page) == (count > 0)


@pytest.mark.slow
def test_references_are_local_and_there(whole: Path) -> None:
    page = _page(whole)
    seen = _Loaded(page)
    outside = [name for name in seen.found if not name.startswith(("#", "data:image/png;base64,"))]
    session = UnblindedSession.read(whole / "evidence")
    worst = [trial for pair in trial_films.worst(session.plan, session.trials) for trial in pair]
    assert outside == [f"films/trial-{session.numbers[trial.code]:03d}.webm" for trial in worst]
    assert outside
    assert all((whole / "page" / name).stat().st_size > 500 for name in outside)
    assert not {"script", "link", "iframe", "object", "embed"} & set(seen.tags)
    assert not re.search(r"https?://|@import|url\((?!#)", page)


@pytest.mark.slow
def test_equal_files_give_equal_bytes(whole: Path, tmp_path: Path) -> None:
    _page(whole)
    script = (
        "import sys; from pathlib import Path; from vqbet.evaluation.trials import session_page; "
        "whole = Path(sys.argv[1]); "
        "session_page.write(whole / 'evidence', whole / 'again', recordings=whole / 'session' / 'recordings'); "
        "assert 'torch' not in sys.modules"
    )
    environment = {"PYTHONHASHSEED": "7", "MPLCONFIGDIR": str(tmp_path), "PATH": "/usr/bin"}
    subprocess.run([sys.executable, "-c", script, str(whole)], check=True, timeout=200, env=environment)
    first, again = (
        {path.relative_to(whole / name): path.read_bytes() for path in (whole / name).rglob("*") if path.is_file()}
        for name in ("page", "again")
    )
    assert first == again


@pytest.mark.slow
def test_it_fits_a_phone_and_loads_nothing_foreign(whole: Path, tmp_path: Path) -> None:
    _page(whole)
    with chromium.started(tmp_path) as browser, browser.page((whole / "page" / "index.html").as_uri()) as page:
        assert page.run("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
        assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        loaded = page.run("performance.getEntriesByType('resource').map(one => one.name)")
        assert all(name.startswith(("file:", "data:")) for name in loaded)
        frame = "const f = document.createElement('iframe'); f.style.width = '390px'; f.srcdoc = "
        page.run(f"{frame}document.documentElement.outerHTML; document.body.append(f); void 0")
        narrow = "document.querySelector('iframe').contentDocument.documentElement"
        page.run("new Promise(done => setTimeout(done, 500))")
        assert page.run(f"{narrow}.scrollWidth <= {narrow}.clientWidth")
        assert page.run(f"{narrow}.clientWidth") <= 390


@pytest.mark.slow
def test_without_recordings_there_is_a_sentence(whole: Path) -> None:
    page = _page(whole, filmed=False)
    assert "<video" not in page
    assert "The recordings are not beside this session" in page
    assert "Worst trials" in page
    assert 'alt="initial condition' not in page  # those pictures lie beside the recordings


def _trial(whole: Path) -> Path:
    """Return the recording of the candidate's worst trial."""
    session = UnblindedSession.read(whole / "evidence")
    trial = trial_films.worst(session.plan, session.trials)[0][0]
    return whole / "session" / "recordings" / f"{trial.stopped['recording']['number']:05d}"


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed picture": (lambda folder: _cut(folder / "camera" / "scene.npy"), "is damaged: its sha256 is another"),
    "another recording": (lambda folder: _cut(folder / "manifest.json"), "is not the recording that the session names"),
    "no camera's file": (lambda folder: (folder / "camera" / "scene.npy").unlink(), "cannot be read: No such file"),
    "no recording": (shutil.rmtree, "manifest.json: is missing"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_recording_is_not_shown(whole: Path, name: str) -> None:
    damage, sentence = DAMAGED[name]
    damage(_trial(whole))
    page = _page(whole)
    assert sentence in page
    assert page.count("<video") == 2 * len(trial_films.worst(*_plan_and_trials(whole))) - 1


def _plan_and_trials(whole: Path) -> tuple[TrialPlan, list[trial_session.Trial]]:
    session = UnblindedSession.read(whole / "evidence")
    return session.plan, list(session.trials)


def _without(name: str) -> Callable[[Path], object]:
    return lambda evidence: (evidence / name).unlink()


def _with(name: str, text: str) -> Callable[[Path], object]:
    return lambda evidence: (evidence / name).write_text(text)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no plan": (_without("trials/plan.json"), "plan.json: cannot be read"),
    "no log": (_without("trials/session.jsonl"), "session.jsonl: cannot be read"),
    "no salt": (_without("trials/salt"), "salt: cannot be read"),
    "no salt but words": (_with("trials/salt", "secret"), "salt: is not what it should be"),
    "another salt": (_with("trials/salt", "00" * 32), "the salt is not the one that plan"),
    "no verdict": (_without("verdict.json"), "verdict.json: cannot be read"),
    "half a verdict": (_with("verdict.json", '{"outcome": "PRO'), "verdict.json: is not strict JSON"),
    "a verdict without numbers": (_with("verdict.json", '{"outcome": "HOLD"}'), "verdict or summary"),
    "no summary": (_without("trials/summary.json"), "summary.json: cannot be read"),
    "an empty summary": (_with("trials/summary.json", "{}"), "summary: 'cost' is missing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_named(whole: Path, name: str) -> None:
    damage, sentence = BROKEN[name]
    damage(whole / "evidence")
    with pytest.raises(GateError, match=re.escape(sentence)):
        _page(whole, filmed=False)
    assert not (whole / "page" / "index.html").exists()


def test_a_changed_picture_of_a_condition_is_refused(whole: Path) -> None:
    picture = sorted((whole / "session" / "pictures").iterdir())[0]
    _cut(picture)
    with pytest.raises(GateError, match="is not the picture that the plan names"):
        _page(whole)


def test_a_candidate_alone_against_the_floor(tmp_path: Path) -> None:
    alone = replace(judged(champion="", floor=0.4), looks=(5,), stopping="fixed")
    made(tmp_path / "session", story=NOTHING, camera=False, judged=alone, chances={CANDIDATE: 0.3})
    _evidence(tmp_path / "session", tmp_path / "evidence")
    page = _page(tmp_path)
    assert CHAMPION not in page.split("<body>")[1]
    assert "After 5 pairs, floor" in page
    assert re.search(r"recording \d has no camera", page)


def test_without_a_look_there_are_no_numbers(tmp_path: Path) -> None:
    made(tmp_path / "session", story=NOTHING, camera=False, judged=replace(judged(), looks=(5,), stopping="fixed"))
    evidence = _evidence(tmp_path / "session", tmp_path / "evidence")
    plan = TrialPlan.read(evidence / "trials" / "plan.json")
    gate.write(evidence / "verdict.json", gate.decide(plan.plan, {}))
    page = _page(tmp_path, filmed=False)
    assert '<span class="badge none">NOT_COMPARABLE</span>' in page
    assert "the records are of nobody" in page
    assert "Confidence interval" not in page


def test_a_candidate_that_never_failed_has_no_worst_trial(tmp_path: Path) -> None:
    few = replace(judged(), looks=(5,), stopping="fixed")
    made(tmp_path / "session", camera=False, judged=few, chances={CANDIDATE: 1.0, CHAMPION: 0.0}, story=NOTHING)
    _evidence(tmp_path / "session", tmp_path / "evidence")
    page = _page(tmp_path)
    assert "The candidate succeeded in every pair." in page
    assert "None." in page


def test_names_of_the_plan_are_escaped_and_conditions_shared(tmp_path: Path) -> None:
    few = replace(judged(), looks=(10,), stopping="fixed")
    odd = "<script>1</script>"
    made(
        tmp_path / "session",
        camera=False,
        judged=few,
        story=Story(0, 2, 0, 0, 0),
        chances={CANDIDATE: 0.0, CHAMPION: 0.0},
        rubric=(Grade(odd, 0.0), Grade("placed", 1.0)),
        conditions=(Condition(odd, odd), Condition("other")),
        tags=(odd,),
    )
    _evidence(tmp_path / "session", tmp_path / "evidence")
    page = _page(tmp_path)
    assert "<script" not in page
    assert page.count('<div class="soft">pair ') == 10


def test_long_recordings_become_short_films(tmp_path: Path) -> None:
    folder = tmp_path / "00007"
    (folder / "camera").mkdir(parents=True)
    pictures = np.zeros((400, 90, 700, 3), np.uint8)
    pictures[:, :, :, 0] = np.linspace(0, 255, 400).astype(np.uint8)[:, None, None]
    for name in ("wrist", "scene"):
        np.save(folder / "camera" / f"{name}.npy", pictures if name == "scene" else pictures[:, :4, :4])
    found = trial_films.manifest.taken(folder, GateError, "")
    text = canonical.document({"files": trial_films.manifest.to_json(found)})
    (folder / "manifest.json").write_text(text)
    digest = trial_films.Fingerprint.of(text.encode()).sha256
    frames = trial_films.frames(tmp_path, 7, digest)
    assert frames.shape == (trial_films.MOST_FRAMES, 30, 233, 3)
    assert (frames[0].max(), frames[-1].min(initial=255, where=[True, False, False])) == (0, 255)


def test_worst_pairs_come_first(whole: Path) -> None:
    plan, trials = _plan_and_trials(whole)
    lost = [
        plan.grade(mine.stage).credit - plan.grade(other.stage).credit
        for mine, other in trial_films.worst(plan, trials)
    ]
    assert lost == sorted(lost)
    assert lost[0] == -1
    assert all(mine.slot.arm == CANDIDATE for mine, _ in trial_films.worst(plan, trials))
