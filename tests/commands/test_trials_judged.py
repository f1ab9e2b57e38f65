"""`vqbet trials judge`, then `promote` and `audit`: what a promotion by robot trials rests on, and what stops it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import trial_lab
from tests.support.trial_lab import BETTER, TASK, WORSE, Lab
from tests.support.trials import Bench
from vqbet import registry
from vqbet.commands import audit, bounds, recheck, release
from vqbet.commands.trials import accepted, run, sessions
from vqbet.commands.trials.run import TrialRun
from vqbet.contract import GateError, RegistryError, VqbetError
from vqbet.evaluation import evidence
from vqbet.evaluation.plan import Plan
from vqbet.evaluation.trials.blinding import committed
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.stages import sealing, verdicts
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

pytestmark = pytest.mark.slow
BOTH = {"evidence": ["simulated", "robot"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trial_lab.make(tmp_path_factory.mktemp("judged") / "base")()


@pytest.fixture
def lab(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return trial_lab.copied(base, tmp_path / "project", monkeypatch)


@pytest.fixture
def better(lab: Lab) -> Lab:
    """A project whose candidate's session is closed, with the better outcomes."""
    lab.plan()
    lab.play(BETTER)
    return lab


def attempt(lab: Lab) -> registry.Attempt:
    return registry.Attempts(TASK).of(lab.candidate)[-1]


# --- judge -----------------------------------------------------------------------------------------------------------


def test_a_verdict_is_kept_sealed_and_told_once(better: Lab) -> None:
    table = better.judge()
    assert table["verdict"].startswith("PROMOTE: against the champion, same seeds; ")
    assert "cost: 8 trials" in table["verdict"]
    assert "GPU hours; nothing was irregular" in table["verdict"]
    assert table["next"] == f"vqbet promote {TASK}"
    sealed = attempt(better)
    assert (sealed.outcome, sealed.episodes, sealed.evidence) == ("PROMOTE", 4, table["evidence"])
    links = len(registry.Attempts(TASK).all)
    assert better.judge() == table
    assert len(registry.Attempts(TASK).all) == links
    shutil.rmtree(better.root / ".vqbet" / "verdicts")
    assert better.judge() == table, "out of the registry"
    assert Path(table["page"]).is_file()
    assert verdicts.replay(better.root, table["evidence"])["recomputed"] == "byte for byte the same"


def test_a_judge_that_died_before_the_seal_is_finished(better: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry.Attempts, "seal_verdict", die)
        with pytest.raises(KeyboardInterrupt):
            better.judge()
    assert not attempt(better).outcome
    table = better.judge()
    assert attempt(better).evidence == table["evidence"]
    assert len(list((better.root / ".vqbet" / "verdicts").iterdir())) == 1


def test_nobody_is_unblinded_before_the_session_is_closed(lab: Lab) -> None:
    lab.plan()
    bench = lab.bench()
    bench.play(BETTER, most=7)
    bench.session.log.close()
    with pytest.raises(GateError, match=r"7 of at most 24 trials on arm 1.*; nobody is unblinded before") as caught:
        lab.judge()
    assert not any(word in str(caught.value) for word in (lab.candidate[:8], lab.champion[:8], "done", "touched"))
    assert not list((lab.root / ".vqbet").glob("judge-*"))
    assert not (lab.root / ".vqbet" / "verdicts").exists()
    assert not attempt(lab).outcome


def test_a_worse_candidate_is_rejected_and_not_promoted(lab: Lab) -> None:
    lab.plan()
    lab.play(WORSE)
    table = lab.judge()
    assert table["verdict"].startswith("REJECT: ")
    assert table["next"] == "the champion stays"
    with pytest.raises(RegistryError, match="REJECT"):
        lab.promote()
    assert registry.champion(TASK).digest == lab.champion  # type: ignore[union-attr]


def test_hold_says_how_many_more_and_another_session_has_less_of_alpha(lab: Lab) -> None:
    lab.plan()
    lab.play(lambda trial: "done" if (trial.slot.pair % 3 == 0) == (trial.slot.arm == "candidate") else "nothing")
    table = lab.judge()
    assert table["verdict"].startswith("HOLD: ")
    assert "more may decide" in table["verdict"]
    assert table["next"].startswith(f"vqbet trials plan {TASK}")
    assert lab.plan()["attempt"].startswith("2 on this candidate by robot")


def test_a_session_that_was_ended_early_says_so(lab: Lab) -> None:
    lab.plan()
    bench = lab.bench()
    bench.play(BETTER, most=3)
    bench.session.close("closed", operator=bench.operator)
    bench.session.log.close()
    said = lab.judge()["verdict"]
    assert said.startswith("NOT_COMPARABLE: the session ended before its first look at 4 complete pairs")
    with pytest.raises(RegistryError, match="NOT_COMPARABLE"):
        lab.promote()


def test_a_log_that_was_changed_leaves_no_verdict(better: Lab) -> None:
    log = better.session.log
    log.write_text(log.read_text().replace('"stage":"touched"', '"stage":"done"', 1))
    with pytest.raises(GateError, match=r"session\.jsonl"):
        better.judge()
    assert not attempt(better).outcome


def test_a_missing_recording_leaves_no_verdict(better: Lab) -> None:
    shutil.rmtree(next(better.session.recordings.glob("[0-9]*")))
    with pytest.raises(GateError, match="recording"):
        better.judge()
    assert not attempt(better).outcome


def test_recordings_may_lie_elsewhere(better: Lab) -> None:
    elsewhere = better.root.parent / "recordings"
    shutil.move(better.session.recordings, elsewhere)
    assert better.judge(recordings=elsewhere)["verdict"].startswith("PROMOTE")


# --- arms that were replaced meanwhile -------------------------------------------------------------------------------


def test_a_champion_that_was_replaced_is_in_the_verdict_and_stops_the_promotion(better: Lab) -> None:
    other = better.register(32)
    registry.force(TASK, 3, who="ann", why="in a hurry")
    table = better.judge()
    note = f"the champion was replaced meanwhile: the plan compares with {better.champion[:12]}, it is {other[:12]} now"
    assert table["verdict"].startswith("PROMOTE: ")
    assert table["verdict"].endswith(f"; irregular: {note}")
    assert table["next"] == note
    assert verdicts.found(better.root, table["evidence"])[1].reason.endswith(note)
    summary = json.loads(
        (Paths(better.root, TASK).verdicts / table["evidence"] / "trials" / "summary.json").read_text()
    )
    assert summary["irregular"] == [note]
    with pytest.raises(RegistryError, match=f"champion {better.champion[:12]}.*{other[:12]}|{other[:12]}"):
        better.promote()
    assert registry.champion(TASK).digest == other  # type: ignore[union-attr]


def test_a_champion_that_is_replaced_after_the_verdict_stops_the_promotion_too(better: Lab) -> None:
    better.judge()
    other = better.register(32)
    registry.force(TASK, 3, who="ann", why="in a hurry")
    with pytest.raises(RegistryError, match=other[:12]):
        better.promote()


def test_a_candidate_that_was_replaced_is_in_the_verdict(better: Lab) -> None:
    other = better.register(32)
    registry.set_candidate(TASK, 3)
    said = better.judge()["verdict"]
    assert said.endswith(
        f"irregular: the registry's candidate is {other[:12]}, not {better.candidate[:12]} of these trials"
    )
    with pytest.raises(GateError, match=f"no session about candidate {other[:12]} was judged; vqbet trials status"):
        better.promote()
    assert release.promote(better.root, TASK, candidate=2, why="it was tried", watch=Watch())["champion"].startswith(
        f"{TASK}/2"
    )


def test_a_session_is_not_begun_with_a_replaced_champion(lab: Lab) -> None:
    lab.plan()
    lab.register(32)
    registry.force(TASK, 3, who="ann", why="in a hurry")
    with pytest.raises(GateError, match=r"the champion was replaced meanwhile.*; plan again: vqbet trials plan"):
        run.run(lab.root, TASK, TrialRun(), Watch())


# --- promote ---------------------------------------------------------------------------------------------------------


def test_robot_evidence_alone_promotes(better: Lab) -> None:
    with pytest.raises(GateError, match=r"asks for robot evidence, and no session about candidate .* was judged"):
        better.promote()
    proof = better.judge()["evidence"]
    said = better.promote()
    assert said["evidence"] == proof
    assert said["checked"] == "statements and recordings of the robot trials verified"
    assert registry.champion(TASK).digest == better.candidate  # type: ignore[union-attr]
    assert better.promote()["entry"] == said["entry"], "a second call changes nothing"


def test_the_committed_rules_decide_not_those_of_the_working_copy(better: Lab) -> None:
    better.judge()
    better.edit(commit=False, gate={"evidence": ["simulated"]}, trials={"margin": 0.1})
    assert better.promote()["champion"].startswith(f"{TASK}/2")


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"margin": 0.3}, "margin"),
        ({"looks": [4, 8]}, "looks"),
        ({"most_invalid": 0.1}, "most_invalid"),
        ({"timeout_s": 30.0}, "timeout_s"),
        ({"conditions": trial_lab.LISTED[:2]}, "conditions"),
        ({"conditions": "drawn"}, "conditions"),
    ],
)
def test_a_session_by_other_rules_than_the_committed_ones_does_not_promote(
    better: Lab, changed: Mapping[str, object], names: str
) -> None:
    better.judge()
    better.edit(trials=changed)
    with pytest.raises(
        GateError, match=rf"trials\.{names}: the session was run by other rules than those of the commit"
    ):
        better.promote()


def test_both_kinds_are_needed_where_both_are_asked_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated episodes were never played, and the replay says so; what follows a replay is shown without it."""
    lab.edit(gate=BOTH)
    simulated = lab.simulate()
    lab.plan()
    lab.play(BETTER)
    table = lab.judge()
    asked: list[str] = []

    def played(root: Path, task: str, proof: str, watch: Watch) -> str:
        asked.append(proof)
        return "as recorded"

    monkeypatch.setattr(recheck, "run", played)
    said = lab.promote()
    assert (said["evidence"], asked) == (table["evidence"], [simulated])
    assert said["checked"] == "as recorded; statements and recordings of the robot trials verified"


def test_simulated_episodes_that_cannot_be_played_again_stop_the_promotion(lab: Lab) -> None:
    lab.edit(gate=BOTH)
    lab.simulate()
    lab.plan()
    lab.play(BETTER)
    lab.judge()
    with pytest.raises(VqbetError, match="dddddddddddd"):
        lab.promote()
    assert registry.champion(TASK).digest == lab.champion  # type: ignore[union-attr]


def test_trials_without_the_simulated_verdict_do_not_do_where_both_are_asked_for(better: Lab) -> None:
    better.judge()
    better.edit(gate=BOTH)
    with pytest.raises(GateError, match=r"asks for simulated and robot, the session .* completes no simulated verdict"):
        better.promote()


def test_a_simulated_verdict_alone_does_not_do_where_robots_are_asked_for(lab: Lab) -> None:
    lab.simulate()
    with pytest.raises(GateError, match="asks for robot evidence, and no session about candidate"):
        lab.promote()


def test_looser_bounds_of_the_simulated_part_are_noticed(lab: Lab) -> None:
    lab.edit(gate=BOTH)
    lab.simulate()
    lab.plan()
    lab.play(BETTER)
    lab.judge()
    lab.edit(gate={"floor": 0.6})
    with pytest.raises(GateError, match=r"gate\.floor: the verdict was sought with 0\.5, the committed .* says 0\.6"):
        lab.promote()


def by_hand(lab: Lab, **fields: Any) -> TrialPlan:
    """Seal a plan with these fields as whoever writes the registry could, and run it."""
    salt = bytes(31) + b"x"
    plan = replace(lab.planned, salt=committed(salt), **fields)
    registry.Attempts(TASK).seal_plan(plan.judged.candidate, plan.plan.sha256, plan.plan.to_json())
    folder = TrialFolder(Paths(lab.root, TASK).trials(plan.sha256))
    folder.keep(plan, salt)
    bench = Bench(folder.path, plan, salt=salt)
    bench.play(BETTER)
    bench.session.log.close()
    return plan


def test_a_simulated_part_that_no_gate_has_sealed_stops_the_promotion(lab: Lab) -> None:
    """It replays and says PROMOTE about these policies, but no gate has sealed it: it may be one of many."""
    lab.edit(gate=BOTH)
    lab.simulate()
    lab.plan()
    folder, _ = verdicts.found(lab.root, lab.planned.after)
    forged = json.loads((folder / "facts.json").read_text()) | {"machine": "another"}
    files = {name: folder / name for name in ("plan.json", "records.jsonl", "verdict.json")}
    other = evidence.pack(lab.root / ".vqbet" / "other", files, forged)
    shutil.move(lab.root / ".vqbet" / "other" / other, folder.parent / other)
    plan = by_hand(lab, after=other)
    assert lab.judge(plan=plan.sha256)["verdict"].startswith("PROMOTE")
    with pytest.raises(
        GateError, match=rf"complete simulated verdict {other[:12]}, and no gate has sealed it as PROMOTE"
    ):
        lab.promote()


def test_a_simulated_part_about_another_champion_leaves_no_verdict(lab: Lab) -> None:
    lab.edit(gate=BOTH)
    lab.simulate()
    lab.plan()
    other = lab.simulate(number=2, champion="e" * 64)
    plan = by_hand(lab, after=other)
    with pytest.raises(GateError, match="trials complete a PROMOTE about their own policies only"):
        lab.judge(plan=plan.sha256)


def test_evidence_of_another_session_is_no_verdict_on_this_one(lab: Lab) -> None:
    """Sealed by hand: an old PROMOTE under a plan whose own session never was judged."""
    lab.plan()
    lab.play(BETTER)
    proof = lab.judge()["evidence"]
    lab.plan()
    second = lab.planned.plan.sha256
    registry.Attempts(TASK).seal_verdict(second, outcome="PROMOTE", episodes=4, evidence=proof)
    with pytest.raises(GateError, match=r"a verdict is sealed with its own evidence only; plan again"):
        lab.promote()


def test_evidence_about_other_digests_is_no_verdict_on_this_candidate(better: Lab) -> None:
    proof, other = better.judge()["evidence"], better.register(32)
    registry.set_candidate(TASK, 3)
    content = better.planned.plan.to_json() | {"candidate": other}
    registry.Attempts(TASK).seal_plan(other, "f" * 64, content)
    registry.Attempts(TASK).seal_verdict("f" * 64, outcome="PROMOTE", episodes=4, evidence=proof)
    with pytest.raises(GateError, match=f"is PROMOTE about {better.candidate[:12]} .*about {other[:12]}"):
        better.promote()


def test_the_newest_verdict_counts(lab: Lab) -> None:
    """An old PROMOTE does not outweigh a later REJECT."""
    lab.plan()
    lab.play(BETTER)
    lab.judge()
    lab.plan()
    lab.play(WORSE)
    lab.judge()
    with pytest.raises(RegistryError, match="REJECT"):
        lab.promote()


def test_approval_is_of_the_robots_verdict(better: Lab) -> None:
    better.edit(promotion={"approvals": 1})
    proof = better.judge()["evidence"]
    with pytest.raises(RegistryError, match="approv"):
        better.promote()
    assert release.approve(better.root, TASK, why="watched all films")["evidence"] == proof
    assert better.promote()["evidence"] == proof


def test_what_the_gate_may_seal_does_not_count_sessions(better: Lab) -> None:
    """Nor the other way round: a session on the robot takes no seeds and no alpha of the simulations."""
    better.judge()
    params = Plan.from_json(attempt(better).content)

    def simulated(number: int) -> Plan:
        return replace(params, world=TASK, machine="", protocol="", first_seed=2000000, attempt=number)

    assert sealing.plan(TASK, simulated).attempt == 1
    assert list(sealing.sought(TASK, better.candidate)) == ["arm 1, session 1", "attempt 1"]


# --- audit -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def promoted(better: Lab) -> Lab:
    better.judge()
    better.promote()
    return better


def findings(lab: Lab) -> dict[str, str]:
    return {one.what: one.wrong or one.note for one in audit.run(lab.root, TASK, Watch(), repair=False)}


def test_audit_follows_an_entry_to_records_recordings_and_films(promoted: Lab) -> None:
    found = findings(promoted)
    folder = promoted.session
    assert found["entry 2, evidence"] == found["entry 2, recordings"] == ""
    assert (
        found["entry 2, films"] == f"recordings in {folder.recordings}; films on {folder.path / 'page' / 'index.html'}"
    )
    shutil.rmtree(folder.recordings)
    assert "the evidence has their manifests" in findings(promoted)["entry 2, films"]
    assert findings(promoted)["entry 2, recordings"] == ""


def test_audit_names_a_recording_that_was_changed(promoted: Lab) -> None:
    recording = next(promoted.session.recordings.glob("[0-9]*/*.npy"))
    recording.write_bytes(recording.read_bytes()[:-1] + b"x")
    assert f"recording {int(recording.parent.name)}" in findings(promoted)["entry 2, recordings"]


def test_audit_names_a_recording_that_is_gone_and_evidence_that_was_changed(promoted: Lab) -> None:
    shutil.rmtree(sorted(promoted.session.recordings.glob("[0-9]*"))[0])
    assert "recording" in findings(promoted)["entry 2, recordings"]
    (folder,) = (promoted.root / ".vqbet" / "verdicts").iterdir()
    log = folder / "trials" / "session.jsonl"
    log.chmod(0o644)
    log.write_text(log.read_text() + "\n")
    assert "session.jsonl: was changed" in findings(promoted)["entry 2, evidence"]


def test_check_is_of_the_plan_and_the_kinds(better: Lab) -> None:
    plan = better.planned
    accepted.check(TASK, plan, bounds.committed(better.root, TASK))
    with pytest.raises(GateError, match="completes a simulated verdict; plan another one"):
        accepted.check(TASK, replace(plan, after="a" * 64), bounds.committed(better.root, TASK))
    assert sessions.replaced(plan) == sessions.succeeded(plan) == ""
