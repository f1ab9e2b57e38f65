"""The page of a session: what it says, that equal files give equal bytes, that it loads nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import chromium
from tests.support.once import once
from tests.support.page_references import PageReferences
from tests.support.point import planned
from tests.support.trial_session_made import INVALID, NOTHING, Story, judged, made
from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import gate, records
from vqbet.evaluation.plan import Plan, Slice
from vqbet.evaluation.trials import judging, session_page, trial_figures, trial_films, trial_log
from vqbet.evaluation.trials.session_page import UnblindedSession
from vqbet.evaluation.trials.trial_plan import CANDIDATE, CHAMPION, Condition, Grade
from vqbet.files import canonical, manifest
from vqbet.files.manifest import Fingerprint


def _evidence(folder: Path, **given: Any) -> Path:
    """Write the evidence of folder/session as the gate keeps it."""
    (folder / "evidence").mkdir()
    judging.stage(folder / "session", folder / "evidence", **given)
    return folder / "evidence"


@pytest.fixture(scope="session")
def whole_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with session/ and evidence/, to be copied."""

    def make(folder: Path) -> None:
        made(folder / "session")
        _evidence(folder, costs={"gpu_hours": 0.25, "video_gb": 3.0})

    return once(tmp_path_factory, "trials", make)


@pytest.fixture
def whole(whole_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_once, tmp_path / "whole"))


def _page(whole: Path, *, filmed: bool = True) -> str:
    recordings = whole / "session" / "recordings" if filmed else None
    return session_page.write(whole / "evidence", whole / "page", recordings=recordings).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_says_what_happened(whole: Path) -> None:
    page = _page(whole)
    session = UnblindedSession.read(whole / "evidence")
    verdict = session.verdict
    assert f'<span class="badge good">{verdict["outcome"]}</span>' in page
    for words in (
        "After 20 pairs, not worse than champion passed", "decided after 20 of 20 pairs", "block 4",
        "42: 40 count, 2 invalid", "minutes in motion", *INVALID, "arm lost its power", "furthest stage reached",
        "1 trial armed more than once", "The connection was lost in 1 trial", "0.25", "video gb", "missed the block",
        session.plan.sha256, verdict["plan"], "lab", "no tag", session.plan.server_key, "no simulated verdict beside",
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
    log = trial_log.read(whole / "session" / "session.jsonl")
    assert len(session.rows) == 42
    for row in session.rows:
        said = f"trial {row['number']}, {row['code']}: {row['arm']}, pair {row['pair'] + 1}, "
        assert f"<title>{said}{row['stage'] or 'invalid, ' + row['reason']}" in page
        proof = page[page.index(f'<td class="code">{row["code"]}</td>') :]
        proof = proof[: proof.index("</tr>")]
        armed = [event for event in log if event.kind == "armed" and event["trial"] == row["code"]][-1]
        assert f'title="{armed["statement"]["commitment"]}"' in proof
        assert f'title="{armed["signature"]}"' in proof
        assert f'<td class="number">{row["outcome"]}</td>' in proof
        recording = row["recording"]
        assert (f'title="{recording["digest"]}"' in proof) if recording else ("none" in proof)


@pytest.mark.slow
def test_stages_and_tags_are_counted_by_arm(whole: Path) -> None:
    session = UnblindedSession.read(whole / "evidence")
    page, numbers = _page(whole), session.verdict["numbers"]
    for arm in session.plan.arms:
        counts = {stage: int(count) for stage, count in re.findall(rf'title="{arm}: (\w+), (\d+) trials"', page)}
        assert sum(counts.values()) == 20
        assert counts["placed"] / 20 == numbers[arm]["success"]
        mine = [row["stage"] for row in session.rows if row["arm"] == arm and row["counts"]]
        assert counts == dict(Counter(mine))


@pytest.mark.slow
def test_references_are_local_and_there(whole: Path) -> None:
    page = _page(whole)
    seen = PageReferences(page)
    outside = [name for name in seen.found if not name.startswith(("#", "data:image/png;base64,"))]
    session = UnblindedSession.read(whole / "evidence")
    worst = [row for pair in trial_films.worst(session.rows, list(session.plan.arms)) for row in pair]
    assert outside == [f"films/trial-{row['number']:03d}.webm" for row in worst]
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
        page.size(390, 844)
        page.listen()
        page.go((whole / "page" / "index.html").as_uri())
        assert page.run("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)") <= 390
        assert page.complaints == []


@pytest.mark.slow
def test_without_recordings_there_is_a_sentence(whole: Path) -> None:
    page = _page(whole, filmed=False)
    assert "<video" not in page
    assert "The recordings are not beside this session" in page
    assert "Worst trials" in page
    assert page.count('alt="initial condition') == 20


def _worst(whole: Path) -> list[list[trial_figures.Row]]:
    session = UnblindedSession.read(whole / "evidence")
    return trial_films.worst(session.rows, list(session.plan.arms))


def _trial(whole: Path) -> Path:
    """Return the recording of the candidate's worst trial."""
    return whole / "session" / "recordings" / f"{_worst(whole)[0][0]['recording']['number']:05d}"


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _noted(path: Path) -> None:
    path.write_text(path.read_text().replace('"note": ""', '"note": "it went well"'))


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed picture": (lambda folder: _cut(folder / "camera" / "scene.npy"), "is damaged: its sha256 is another"),
    "another recording": (
        lambda folder: _noted(folder / "manifest.json"),
        "is not the recording that the session names",
    ),
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
    assert page.count("<video") == 2 * len(_worst(whole)) - 1


def _without(name: str) -> Callable[[Path], object]:
    return lambda evidence: (evidence / name).unlink()


def _with(name: str, text: str) -> Callable[[Path], object]:
    return lambda evidence: (evidence / name).write_text(text)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no plan": (_without("trials/plan.json"), "plan.json: cannot be read"),
    "no log": (_without("trials/session.jsonl"), "session.jsonl: cannot be read"),
    "half a log": (_with("trials/session.jsonl", "{"), "session.jsonl: the last line is cut off"),
    "no picture": (lambda evidence: shutil.rmtree(evidence / "trials" / "pictures"), ".png: is missing"),
    "no verdict": (_without("verdict.json"), "verdict.json: cannot be read"),
    "half a verdict": (_with("verdict.json", '{"outcome": "PRO'), "verdict.json: is not strict JSON"),
    "a verdict without numbers": (_with("verdict.json", '{"outcome": "HOLD"}'), "verdict or summary"),
    "no summary": (_without("trials/summary.json"), "summary.json: cannot be read"),
    "an empty summary": (_with("trials/summary.json", "{}"), "summary: 'trials' is missing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_named(whole: Path, name: str) -> None:
    damage, sentence = BROKEN[name]
    damage(whole / "evidence")
    with pytest.raises(GateError, match=re.escape(sentence)):
        _page(whole, filmed=False)
    assert not (whole / "page" / "index.html").exists()


def test_a_candidate_alone_against_the_floor(tmp_path: Path) -> None:
    alone = replace(judged(champion="", floor=0.4), looks=(5,), stopping="fixed")
    made(tmp_path / "session", story=NOTHING, camera=False, judged=alone, chances={CANDIDATE: 0.3})
    _evidence(tmp_path)
    page = _page(tmp_path)
    assert CHAMPION not in page.split("<body>")[1]
    assert "After 5 pairs, floor" in page
    assert re.search(r"recording \d has no camera", page)


def _ended_early(folder: Path, trials: int, looks: tuple[int, ...]) -> str:
    """Return the page of a session that its operator ended after some trials."""
    session = made(folder / "session", story=NOTHING, camera=False, judged=judged(looks=looks), trials=trials)
    _evidence(folder)
    assert session.log.is_file()
    return _page(folder, filmed=False)


def test_without_a_look_there_are_no_numbers(tmp_path: Path) -> None:
    page = _ended_early(tmp_path, 4, (10, 20))
    assert '<span class="badge none">NOT_COMPARABLE</span>' in page
    assert "The session ended before its first look" in page
    assert "Confidence interval" not in page
    assert "0 count" in page


@pytest.mark.slow
def test_trials_after_the_last_look_are_shown_and_do_not_count(tmp_path: Path) -> None:
    page = _ended_early(tmp_path, 14, (5, 10))
    assert "after the last look, does not count" in page
    assert page.count(", does not count</title>") == 4
    assert page.count('opacity="0.35"') == 4
    assert "14: 10 count, 0 invalid" in page
    assert sum(int(count) for count in re.findall(r'title="\w+: \w+, (\d+) trials"', page)) == 10


@pytest.mark.slow
def test_simulations_of_the_same_policies_are_a_secondary_line(tmp_path: Path) -> None:
    plan = replace(planned(), looks=(40,), first_seed=3000, floor=0.0, reserved={}, task="synthetic", metric="success")
    plan = replace(plan, slices=(Slice("all", 1.0),), baselines=(), question="not_worse", margin=0.3, min_modes=0)
    played = [record for name in ("candidate", "champion") for record in _simulated(plan, name)]
    simulated = tmp_path / "simulated"
    simulated.mkdir()
    plan.write(simulated / "plan.json")
    records.write(simulated / "records.jsonl", played)
    gate.write(simulated / "verdict.json", gate.decide(plan, gate.by_policy(played)))
    names = ("plan.json", "records.jsonl", "verdict.json")
    listed = manifest.to_json({name: Fingerprint.of((simulated / name).read_bytes()) for name in names})
    text = canonical.document({"version": 1, "files": listed})
    (simulated / "manifest.json").write_text(text)
    after = Fingerprint.of(text.encode()).sha256
    made(tmp_path / "session", camera=False, story=NOTHING, after=after)
    _evidence(tmp_path, simulated=simulated)
    page = _page(tmp_path, filmed=False)
    assert "PROMOTE after 40 episodes of each policy" in page
    assert "Secondary, without effect on the verdict" in page
    assert after in page
    assert re.search(r"the difference of the success is\s\+0\.\d+ \([+-]\d", page)


def _simulated(plan: Plan, policy: str) -> list[EpisodeRecord]:
    chances, digest = {"candidate": 0.9, "champion": 0.7}, {"candidate": plan.candidate, "champion": plan.champion}
    random = np.random.default_rng(len(policy))
    return [
        EpisodeRecord(
            world=plan.world,
            policy=policy,
            digest=digest[policy],
            plan=plan.sha256,
            seed=seed,
            steps=9,
            success=success,
            score=float(success),
            slice="all",
            machine=plan.machine,
        )
        for seed in plan.seeds
        for success in [bool(random.random() < chances[policy])]
    ]


def test_a_candidate_that_never_failed_has_no_worst_trial(tmp_path: Path) -> None:
    few = replace(judged(), looks=(5,), stopping="fixed")
    made(tmp_path / "session", camera=False, judged=few, chances={CANDIDATE: 1.0, CHAMPION: 0.0}, story=NOTHING)
    _evidence(tmp_path)
    page = _page(tmp_path)
    assert "The candidate succeeded in every pair." in page
    assert "None." in page


@pytest.mark.slow
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
    _evidence(tmp_path)
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
    facts = {"digest": "", "session": "", "robot": "", "operator": "", "seed": 0}
    (folder / "episode.json").write_text(canonical.document(facts))
    found = manifest.to_json(manifest.taken(folder, GateError, ""))
    text = canonical.document({"files": found, "steps": 400})
    (folder / "manifest.json").write_text(text)
    digest = Fingerprint.of(text.encode()).sha256
    frames = trial_films.frames(tmp_path, 7, digest)
    assert frames.shape == (trial_films.MOST_FRAMES, 30, 233, 3)
    assert (frames[0].max(), frames[-1].min(initial=255, where=[True, False, False])) == (0, 255)


@pytest.mark.slow
def test_worst_pairs_come_first(whole: Path) -> None:
    lost = [mine["credit"] - other["credit"] for mine, other in _worst(whole)]
    assert lost == sorted(lost)
    assert lost[0] == -1
    assert {(mine["arm"], other["arm"]) for mine, other in _worst(whole)} == {(CANDIDATE, CHAMPION)}
