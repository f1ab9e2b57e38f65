"""`vqbet trials plan` and `status`: what is locked and sealed, by which rules, and what the table says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import people, trial_lab, trials
from tests.support.trial_lab import LISTED, TASK, Lab
from vqbet import registry, signing
from vqbet.commands.trials import plan_table, planning, sessions
from vqbet.contract import ConfigError, GateError, RegistryError
from vqbet.evaluation.plan import MOST_ATTEMPTS
from vqbet.evaluation.trials import session_power
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.files import manifest
from vqbet.stages.paths import Paths

PNG = b"\x89PNG\r\n\x1a\n and more"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trial_lab.make(tmp_path_factory.mktemp("planning") / "base")()


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trial_lab.make(tmp_path_factory.mktemp("lonely") / "base", champion=False)()


@pytest.fixture
def alone(lonely: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A project without a champion."""
    return trial_lab.copied(lonely, tmp_path / "project", monkeypatch)


@pytest.fixture
def lab(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return trial_lab.copied(base, tmp_path / "project", monkeypatch)


def test_a_plan_is_locked_and_sealed_before_the_first_trial(lab: Lab) -> None:
    table = lab.plan()
    plan, folder = lab.planned, lab.session
    assert (plan.arms, plan.robot) == ({"candidate": lab.candidate, "champion": lab.champion}, "arm 1")
    assert [one.name for one in plan.conditions] == ["left", "right", "far"]
    assert folder.salt.stat().st_mode & 0o777 == 0o600
    assert folder.salt.read_text().strip() not in json.dumps(plan.to_json()) + json.dumps(table)
    (attempt,) = registry.Attempts(TASK).of(lab.candidate)
    assert (attempt.plan, attempt.content, attempt.outcome) == (plan.plan.sha256, plan.plan.to_json(), "")
    assert attempt.on_robot


def test_the_table_says_what_it_asks_takes_and_what_is_next(lab: Lab) -> None:
    table = lab.plan()
    assert table["question"] == (
        "is the candidate's success on arm 1 not worse by 0.4 than the champion's, and above 0.1"
    )
    assert table["trials"] == "24 at most: 12 initial conditions, each for both policies"
    assert table["blocks"] == "6 of 4 trials, each in random order"
    assert table["attempt"] == "1 on this candidate by robot; its error rate is 0.15 of alpha 0.2"
    assert "24 at most, where each trial takes its 60 s" in table["robot time"]
    assert list(table)[-2:] == ["operator", "next"]
    assert table["next"] == f"vqbet trials run {TASK}"


def test_the_power_is_that_of_the_sessions_looks(lab: Lab) -> None:
    """Whatever the plan says: fewer pairs, a smaller margin and a later attempt have less of it."""
    table, plan = lab.plan(), lab.planned
    course = session_power.session_course(plan.judged, both=0.3, gained=0.1, lost=0.1)
    shown = [table[f"power at {pairs}"] for pairs in plan.judged.looks]
    assert shown == [f"{100 * power:.0f} % are promoted by then" for power in course.promoted]
    assert list(course.promoted) == sorted(course.promoted)
    assert table["robot time"].startswith(f"{2 * course.pairs:.0f} minutes expected")

    def last(**judged: Any) -> int:
        changed = replace(plan, judged=replace(plan.judged, **judged))
        rows = plan_table.rows(changed, lab.session.path)
        return int(rows[f"power at {changed.pairs}"].split()[0])

    assert last(margin=0.2) < last(margin=0.3) < last() > last(attempt=3)
    assert last(looks=(4,)) < last(looks=(8,)) < last(looks=(40,))


@pytest.mark.parametrize(
    ("judged", "says"),
    [
        ({"question": "better"}, "a candidate better by 0.4: the candidate succeeds in 40 %, 40 % of the pairs differ"),
        ({"champion": ""}, "its success is 0.4"),
        ({"metric": "score"}, "equal policies, whose credits differ by 0.3 (standard deviation); by the normal"),
        ({"floor": 1.0}, "equal policies: the candidate succeeds in 95 %, 10 % of the pairs differ"),
        ({"floor": 0.0}, "equal policies: the candidate succeeds in 30 %, 20 % of the pairs differ"),
        ({"stopping": "anytime"}, "equal policies: the candidate succeeds in 40 %"),
        ({"stopping": "fixed", "looks": (12,)}, "equal policies: the candidate succeeds in 40 %"),
        ({"looks": (100, 400), "margin": 0.05}, "equal policies, whose credits differ by 0.3"),
    ],
)
def test_every_kind_of_plan_has_its_power(lab: Lab, judged: Mapping[str, Any], says: str) -> None:
    if "margin" in judged:
        says = "equal policies: the candidate succeeds in 40 %, 20 % of the pairs differ; by the normal approximation"
    lab.plan()
    changed = replace(lab.planned, judged=replace(lab.planned.judged, **judged))
    table = plan_table.rows(changed, lab.session.path)
    assert table["assumed"].startswith(says)
    assert all(table[f"power at {pairs}"].endswith("by then") for pairs in changed.judged.looks)
    assert "by one look after" in table["power 80 %"] or "by no number" in table["power 80 %"]


def test_the_committed_rules_count(lab: Lab) -> None:
    """Bounds that are loosened in the working copy alone have no effect."""
    lab.edit(commit=False, trials={"margin": 0.9, "looks": [2]}, gate={"evidence": ["simulated"]})
    lab.plan()
    assert (lab.planned.judged.margin, lab.planned.judged.looks) == (0.4, (4, 8, 12))


def test_robot_evidence_must_be_asked_for(lab: Lab) -> None:
    lab.edit(gate={"evidence": ["simulated"]})
    with pytest.raises(GateError, match=r'asks for simulated only; add "robot", and commit it'):
        lab.plan()


def test_a_second_plan_is_asked_for_and_costs(lab: Lab) -> None:
    lab.plan()
    with pytest.raises(GateError, match=r"about the same policies is not finished \(0 of at most 24 trials .*--again"):
        lab.plan()
    table = lab.plan(again=True)
    assert table["attempt"] == "2 on this candidate by robot; its error rate is 0.038 of alpha 0.2"
    assert lab.planned.judged.attempt == 2
    for _ in range(MOST_ATTEMPTS - 2):
        lab.plan(again=True)
    with pytest.raises(GateError, match=f"was tried on a robot {MOST_ATTEMPTS} times, and no share of alpha is left"):
        lab.plan(again=True)


def test_attempts_in_simulation_are_no_sessions_on_the_robot(lab: Lab) -> None:
    lab.simulate()
    lab.plan()
    assert lab.planned.judged.attempt == 1
    assert [one.on_robot for one in registry.Attempts(TASK).of(lab.candidate)] == [False, True]


def test_simulated_evidence_comes_first_where_both_are_asked_for(lab: Lab) -> None:
    lab.edit(gate={"evidence": ["simulated", "robot"]})
    with pytest.raises(GateError, match=r"no gate says PROMOTE about candidate .*: dvc repro gate@blockpush"):
        lab.plan()
    lab.simulate(better=False)
    with pytest.raises(GateError, match="no gate says PROMOTE"):
        lab.plan()
    lab.simulate(number=2, champion="e" * 64)
    with pytest.raises(GateError, match="no gate says PROMOTE"):
        lab.plan()
    proof = lab.simulate(number=3)
    assert lab.plan()["completes"] == f"simulated verdict {proof[:12]}"
    assert lab.planned.after == proof


def test_a_simulated_verdict_by_other_bounds_is_not_completed(lab: Lab) -> None:
    lab.edit(gate={"evidence": ["simulated", "robot"]})
    lab.simulate()
    lab.edit(gate={"margin": 0.1})
    with pytest.raises(GateError, match=r"gate\.margin: the verdict was sought with 0\.2, the committed .* says 0\.1"):
        lab.plan()


def test_without_a_champion_the_candidate_meets_the_floor(alone: Lab) -> None:
    table = alone.plan()
    assert table["question"] == "is the candidate's success on arm 1 above 0.1; there is no champion to compare with"
    assert table["trials"] == "12 at most: 12 initial conditions, each for the candidate"
    assert list(alone.planned.arms) == ["candidate"]


def test_another_version_may_be_planned(lab: Lab) -> None:
    other = lab.register(32)
    lab.plan(candidate=3)
    assert lab.planned.arms["candidate"] == other


def test_the_champion_against_itself_decides_nothing(lab: Lab) -> None:
    with pytest.raises(GateError, match=r"blockpush/1: is the champion already"):
        lab.plan(candidate=1)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"block": 3}, r"blockpush\.trials: block: expected a divisor of every look"),
        ({"looks": [4, 2]}, r"blockpush\.trials: looks: expected ascending"),
        ({"rubric": {"nothing": 0.0, "done": 0.5}}, r"blockpush\.trials: rubric: expected credits rising from 0 to 1"),
    ],
)
def test_rules_that_make_no_plan_are_named(lab: Lab, changed: Mapping[str, object], says: str) -> None:
    if "rubric" in changed:
        lab.edit(trials={"rubric": None})
    lab.edit(trials=changed)
    with pytest.raises((GateError, ConfigError), match=says):
        lab.plan()
    assert sessions.rows(lab.root, TASK) == {"sessions": f"none yet: vqbet trials plan {TASK}"}


def test_pictures_are_kept_beside_the_plan(lab: Lab) -> None:
    (lab.root / "left.png").write_bytes(PNG)
    lab.edit(trials={"conditions": [{**LISTED[0], "picture": "left.png"}, *LISTED[1:]]})
    lab.plan()
    sha256 = lab.planned.conditions[0].picture
    assert manifest.sha256(lab.session.pictures / f"{sha256}.png") == sha256
    (lab.root / "left.png").write_bytes(b"GIF89a")
    with pytest.raises(GateError, match=r"left\.png: expected a PNG picture of condition 'left'"):
        lab.plan(again=True)
    (lab.root / "left.png").unlink()
    with pytest.raises(GateError, match=r"left\.png: .*name a PNG file"):
        lab.plan(again=True)


def test_drawn_conditions_are_the_simulations_seeds_with_its_pictures(lab: Lab) -> None:
    """Listed ones have no seeds of the simulation, so they are not taken for its episodes."""
    lab.plan()
    assert lab.planned.judged.first_seed == 0
    lab.edit(trials={"conditions": "drawn"})
    lab.plan(again=True)
    plan = lab.planned
    assert plan.judged.first_seed == 2000000
    assert [one.name for one in plan.conditions] == [f"scene {pair + 1}" for pair in range(12)]
    pictures = [lab.session.pictures / f"{one.picture}.png" for one in plan.conditions]
    assert len({path.read_bytes() for path in pictures}) == 12
    assert lab.session.read  # every picture is the one that the plan names
    lab.session._expect_pictures(plan)


def test_a_task_without_a_world_draws_numbered_scenes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning.worlds, "exists", lambda task, params: False)
    lab.edit(trials={"conditions": "drawn"})
    lab.plan()
    assert lab.planned.conditions[11].name == "scene 12"
    assert not lab.session.pictures.exists()


def test_the_servers_key_must_be_trusted_where_a_trust_file_is_in_force(alone: Lab) -> None:
    key = replace(trials.key(), id=signing.identify(signing.parse(trials.key().public)))
    people.trusted(alone.root, "server-1", key, "judge")
    people.commit(alone.root)
    with pytest.raises(RegistryError, match=r"nobody with the role serve .*vqbet keys trust <name> --role serve"):
        alone.plan()
    people.trusted(alone.root, "server-1", key, "serve")
    people.commit(alone.root)
    planning.expect_trusted(key.public)


def test_a_key_that_is_none_is_refused(lab: Lab) -> None:
    with pytest.raises(GateError, match="server_key: expected base64 of a public key of 32 bytes"):
        lab.plan(server_key="x")


def test_the_projects_own_key_is_the_servers(lab: Lab) -> None:
    lab.plan(server_key="")
    assert (lab.root / ".vqbet" / "server-key.pem").stat().st_mode & 0o777 == 0o600
    assert lab.planned.server_key != trials.key().public


# --- status ----------------------------------------------------------------------------------------------------------


def test_status_says_what_each_session_waits_for_and_nothing_of_the_arms(lab: Lab) -> None:
    lab.plan()
    short = lab.planned.sha256[:12]
    waits = f"0 of at most 24 trials on arm 1; waits for: vqbet trials run {TASK} --plan {short}"
    assert sessions.rows(lab.root, TASK) == {short: waits}
    bench = lab.bench()
    bench.play(trial_lab.BETTER, most=3)
    said = sessions.rows(lab.root, TASK)[short]
    assert said.startswith("3 of at most 24 trials")
    assert not any(word in said for word in ("candidate", "champion", lab.candidate[:12], lab.champion[:12]))
    bench.play(trial_lab.BETTER)
    bench.session.log.close()
    assert (
        sessions.rows(lab.root, TASK)[short]
        == f"8 trials, decided; waits for: vqbet trials judge {TASK} --plan {short}"
    )
    lab.judge()
    assert sessions.rows(lab.root, TASK)[short] == "PROMOTE, 8 trials on arm 1"


def test_a_plan_that_was_edited_after_locking_is_named_and_stops_no_other(lab: Lab) -> None:
    lab.plan()
    first, file = lab.planned, lab.session.plan
    replace(first, judged=replace(first.judged, margin=0.9)).write(file)
    said = sessions.rows(lab.root, TASK)[first.sha256[:12]]
    assert "was changed after it was locked" in said
    lab.plan()  # the changed one is no open session
    lab.play()
    assert lab.judge()["verdict"].startswith("PROMOTE")
    with pytest.raises(GateError, match="was changed after it was locked"):
        lab.judge(plan=first.sha256)


def test_a_session_without_its_salt_is_named(lab: Lab) -> None:
    lab.plan()
    lab.session.salt.unlink()
    (said,) = sessions.rows(lab.root, TASK).values()
    assert "salt: is missing" in said


def test_another_salt_makes_another_order_and_is_refused(lab: Lab) -> None:
    lab.plan()
    folder = lab.session
    folder.salt.chmod(0o600)
    folder.salt.write_text("00" * 32 + "\n")
    (said,) = sessions.rows(lab.root, TASK).values()
    assert "the salt is not the one that plan" in said


def test_an_unknown_plan_lists_the_known_ones(lab: Lab) -> None:
    with pytest.raises(GateError, match=r"no plan of trials 'abc' here; there are: none; make one: vqbet trials plan"):
        sessions.chosen(lab.root, TASK, "abc")
    lab.plan()
    with pytest.raises(GateError, match=f"there are: {lab.planned.sha256[:12]}"):
        sessions.chosen(lab.root, TASK, "xyz")
    assert sessions.chosen(lab.root, TASK, lab.planned.sha256[:6]).plan == lab.planned


def test_a_plan_of_another_project_is_none_here(lab: Lab, base: Path) -> None:
    lab.plan()
    plan = TrialPlan.read(lab.session.plan)
    with pytest.MonkeyPatch.context() as patch:
        other = trial_lab.copied(base, lab.root.parent / "other", patch)
        target = Paths(other.root, TASK).trials(plan.sha256)
        shutil.copytree(
            lab.session.path if lab.root == other.root else Paths(lab.root, TASK).trials(plan.sha256), target
        )
        (said,) = sessions.rows(other.root, TASK).values()
    assert "no plan of this content was sealed in the registry" in said
