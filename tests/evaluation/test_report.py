"""The HTML report of a task: what it says, that equal files give equal bytes, that it loads nothing from elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.page_references import PageReferences
from tests.support.point import planned
from vqbet.contract import Channel, EpisodeRecord, GateError, Spec
from vqbet.evaluation import gate, records, report
from vqbet.evaluation.plan import Plan, spec_sha256

EPISODES = 40
CHANCES = {"candidate": 0.9, "champion": 0.4, "noop": 0.0, "nearest": 0.3}
TABLE = Spec(
    task="table",
    observation=tuple(Channel(f"{thing}_{axis}", "m", -1.0, 1.0) for thing in ("effector", "block") for axis in "xy"),
    action=(Channel("dx", "m", -0.1, 0.1), Channel("dy", "m", -0.1, 0.1)),
    control_hz=10.0,
    action_kind="relative",
    frame="table",
)
TRACKS = {"effector": ("effector_x", "effector_y"), "block": ("block_x", "block_y")}
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c63606060f80f0001040100"
    "5fe5c34b0000000049454e44ae426082"
)


def _plan() -> Plan:
    return replace(
        planned(),
        task="table",
        world="table",
        spec=spec_sha256(TABLE),
        first_seed=2000,
        looks=(EPISODES,),
        reserved={"selection": (1000, 1000 + EPISODES)},
        baselines=("noop", "nearest"),
    )


def _arm(plan: Plan, policy: str, chance: float, first: int = 2000) -> list[EpisodeRecord]:
    random = np.random.default_rng(len(policy))
    digest = {"candidate": "c" * 64, "champion": "d" * 64}.get(policy, "")
    found = []
    for seed in range(first, first + EPISODES):
        success = bool(random.random() < chance)
        mode = ("left", "right", "")[int(random.integers(3))] if success else ""
        score = 1.0 if success else float(random.random() * chance)
        found.append(
            EpisodeRecord(
                world=plan.world,
                policy=policy,
                digest=digest,
                plan=plan.sha256,
                seed=seed,
                steps=30,
                success=success,
                score=score,
                mode=mode,
                slice=plan.slice_of(seed).name,
                machine=plan.machine,
                metrics={"distance_m": 0.1},
            )
        )
    return found


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What the stages of a run leave behind, small."""
    root, plan, random = tmp_path / "artifacts", _plan(), np.random.default_rng(0)
    arms = {name: _arm(plan, name, chance) for name, chance in CHANCES.items()}
    for name in ("evaluation/films", "gate", "plots", "policy", "validation"):
        (root / name).mkdir(parents=True)
    plan.write(root / "gate" / "plan.json")
    records.write(root / "evaluation" / "records.jsonl", _arm(plan, "candidate", 0.9, first=1000))
    records.write(root / "gate" / "records.jsonl", [record for arm in arms.values() for record in arm])
    gate.write(root / "gate" / "verdict.json", gate.decide(plan, arms))
    lengths = np.full(EPISODES, 30)
    np.save(root / "evaluation" / "paths.npy", random.normal(size=(lengths.sum(), 4)).cumsum(axis=0).astype(np.float32))
    np.save(root / "evaluation" / "path_ends.npy", lengths.cumsum())
    (root / "evaluation" / "films" / "seed-1000.webm").write_bytes(b"film")
    (root / "gate" / "films").mkdir()
    for name in ("candidate", "champion"):
        (root / "gate" / "films" / f"{name}-2007.webm").write_bytes(b"film")
    (root / "evaluation" / "films" / "seed-1000.png").write_bytes(PNG)
    rows = "\n".join(f"{step},{2.0**-step:.6g},{0.5 + step / 40:.6g}" for step in range(20))
    for name in ("prior", "tokenizer"):
        (root / "plots" / f"{name}.csv").write_text(f"step,loss,code_accuracy\n{rows}\n")
    bundle = {"spec": TABLE.to_json(), "provenance": {"code": "0.1.0", "data": "e" * 64, "params": {"a": 1}}}
    (root / "policy" / "bundle.json").write_text(json.dumps(bundle))
    health = {
        "trained_steps": 100, "chunks": 500, "codes": 4, "mean_error": [0.001, 0.002], "p99_error": [0.01, 0.02],
        "mean_error_over_std": [0.05, 0.06], "codes_used": [4, 3], "perplexity": [3.5, 2.5], "combinations_used": 9,
        "channels": ["dx", "dy"], "units": ["m", "m"], "usage": [[0.25, 0.25, 0.25, 0.25], [0.5, 0.3, 0.2, 0.0]],
    }  # fmt: skip
    (root / "health.json").write_text(json.dumps(health))
    (root / "validation" / "index.html").write_text("fit")
    return root


def _page(files: Path, **changes: object) -> str:
    inputs = replace(report.ReportInputs(files, TRACKS, {"data version": "abc123.dir"}), **changes)
    return report.write(files / "report", task="table", inputs=inputs).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_says_what_happened(files: Path) -> None:
    page = _page(files)
    verdict = json.loads((files / "gate" / "verdict.json").read_text())
    assert f'<span class="badge good">{verdict["outcome"]}</span>' in page
    for arm, numbers in verdict["numbers"].items():
        row = page[page.index(f">{arm}</b>" if arm in ("candidate", "champion") else f"<td>{arm} ") :]
        assert f"{numbers['score']:.3f}" in row[: row.index("</tr>")]
    for words in (
        "better than champion", "better than noop", "code accuracy", "perplexity", "effector", "bits",
        "left (", "seed 1000", "seed 2007", "decided after 40 of 40", "p of worse (Holm)",
        "exact McNemar p", "abc123.dir", "e" * 64, "c" * 64, verdict["plan"], "2000 to 2039", "0.001 m", "0.02 m",
    ):  # fmt: skip
        assert words in page, words
    assert page.count("<svg") > 13


@pytest.mark.slow
def test_references_are_local_and_there(files: Path) -> None:
    page = _page(files)
    seen = PageReferences(page)
    outside = [name for name in seen.found if not name.startswith(("#", "data:image/png;base64,"))]
    assert "../evaluation/films/seed-1000.webm" in outside
    assert "../validation/index.html" in outside
    assert all((files / "report" / name).is_file() for name in outside)
    assert not {"script", "link", "iframe", "object", "embed"} & set(seen.tags)
    assert not re.search(r"https?://|@import|url\((?!#)", page)


@pytest.mark.slow
def test_equal_files_give_equal_bytes(files: Path, tmp_path: Path) -> None:
    first = _page(files)
    script = (
        "import sys; from pathlib import Path; from vqbet.evaluation import report; "
        "files = Path(sys.argv[1]); pairs = {name: (f'{name}_x', f'{name}_y') for name in ('effector', 'block')}; "
        "inputs = report.ReportInputs(files, pairs, {'data version': 'abc123.dir'}); "
        "report.write(files / 'report', task='table', inputs=inputs); "
        "assert 'torch' not in sys.modules"
    )
    environment = {"PYTHONHASHSEED": "7", "MPLCONFIGDIR": str(tmp_path), "PATH": "/usr/bin"}
    subprocess.run([sys.executable, "-c", script, str(files)], check=True, timeout=200, env=environment)
    assert (files / "report" / "index.html").read_text(encoding="utf-8") == first


def test_what_was_not_left_is_left_out(files: Path) -> None:
    for name in ("health.json", "plots/prior.csv", "plots/tokenizer.csv", "evaluation/paths.npy", "policy/bundle.json"):
        (files / name).unlink()
    for name in ("evaluation/films/seed-1000", "gate/films/candidate-2007", "gate/films/champion-2007"):
        (files / f"{name}.webm").unlink()
    page = _page(files)
    for words in ("Tokenizer health", "Training of", "Rollouts", "<video"):
        assert words not in page
    assert "Provenance" in page


@pytest.mark.slow
def test_records_of_another_plan_get_no_numbers(files: Path) -> None:
    arms = {name: _arm(_plan(), name, chance) for name, chance in CHANCES.items()}
    verdict = gate.decide(_plan(), {**arms, "candidate": arms["candidate"][1:]})
    gate.write(files / "gate" / "verdict.json", verdict)
    page = _page(files)
    assert '<span class="badge none">NOT_COMPARABLE</span>' in page
    assert "Side by side" not in page
    assert "seeds are missing" in page
    assert "Evidence of the gate" not in page


@pytest.mark.slow
def test_a_world_without_modes_is_coloured_by_success(files: Path) -> None:
    plan = _plan()
    path = files / "evaluation" / "records.jsonl"
    records.write(path, [replace(record, mode="") for record in records.read(path)])
    page = _page(files)
    assert "Trajectories" in page
    assert "no success (" in page
    assert plan.sha256 in page


@pytest.mark.slow
def test_text_from_files_is_escaped(files: Path) -> None:
    page = _page(files, facts={"note": "<script>alert(1)</script>"})
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def _without(name: str) -> Callable[[Path], None]:
    return lambda files: (files / name).unlink()


def _with(name: str, text: str) -> Callable[[Path], None]:
    return lambda files: (files / name).write_text(text) and None


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no plan": (_without("gate/plan.json"), "plan.json"),
    "no records": (_without("evaluation/records.jsonl"), "records.jsonl"),
    "no verdict": (_without("gate/verdict.json"), "verdict.json"),
    "half a verdict": (_with("gate/verdict.json", '{"outcome": "PRO'), "verdict.json"),
    "curves without steps": (_with("plots/prior.csv", "loss\n1\n"), "prior.csv: expected a column 'step'"),
    "curves with words": (_with("plots/prior.csv", "step,loss\n1,high\n"), "prior.csv: expected a number"),
    "paths of another world": (_with("evaluation/paths.npy", "no array"), "paths.npy: cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_named(files: Path, name: str) -> None:
    damage, sentence = BROKEN[name]
    damage(files)
    with pytest.raises(GateError, match=re.escape(sentence)):
        _page(files)
    assert not (files / "report" / "index.html").exists()


def test_an_unknown_track_is_named(files: Path) -> None:
    with pytest.raises(GateError, match="no observation channel gripper_x; there are: effector_x"):
        _page(files, tracks={"gripper": ("gripper_x", "effector_y")})
