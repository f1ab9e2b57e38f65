"""The session of tests/support/trial_session_made.py is whole, proves every trial, and follows its plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.trial_session_made import DIGESTS, INVALID, NOTHING, Story, judged, made
from vqbet.evaluation.trials import trial_log, trial_session
from vqbet.evaluation.trials.trial_plan import CHAMPION
from vqbet.serving import recordings
from vqbet.signing import keys, statements
from vqbet.signing.statements import Statement


@pytest.mark.slow
def test_a_session_is_whole_and_proves_every_trial(tmp_path: Path) -> None:
    session = made(tmp_path / "session")
    progress = trial_session.progress(session.plan, session.blinding, trial_log.read(session.log))
    states = [trial.state for trial in progress.trials.values()]
    assert progress.closed == "decided"
    assert (states.count("graded"), states.count("invalid")) == (40, 2)
    assert {trial.reason for trial in progress.trials.values()} == {"", INVALID[1], INVALID[2]}
    public = keys.parse(session.plan.server_key)
    for trial in progress.trials.values():
        statement = Statement.from_json(trial.armed["statement"])
        wanted = session.blinding.commitment(trial.code, DIGESTS[trial.slot.arm])
        assert statements.genuine(public, trial.armed["signature"], statement)
        assert statement.commitment == wanted
        if trial.stopped["recording"]:
            number = trial.stopped["recording"]["number"]
            recording = recordings.read(session.recordings, number)
            assert recording.digest == trial.stopped["recording"]["digest"]
            assert recording.facts.digest == wanted
            assert recording.facts.session == f"trial {trial.code}"
            assert recording.facts.seed == session.plan.judged.first_seed + trial.slot.pair
    assert len(recordings.listing(session.recordings).finished) == 41
    assert {path.stem for path in (session.folder / "pictures").iterdir()} == {
        one.picture for one in session.plan.conditions
    }


def test_a_candidate_alone_without_pictures_and_without_trouble(tmp_path: Path) -> None:
    alone = replace(judged(champion=""), looks=(5,), stopping="fixed")
    session = made(tmp_path / "session", story=NOTHING, camera=False, judged=alone)
    progress = trial_session.progress(session.plan, session.blinding, trial_log.read(session.log))
    assert [trial.state for trial in progress.trials.values()] == ["graded"] * 5
    assert CHAMPION not in session.plan.arms
    assert not (session.folder / "pictures").exists()


def test_a_look_may_end_it(tmp_path: Path) -> None:
    short = replace(judged(), looks=(5, 10))
    session = made(
        tmp_path / "session", goes_on=lambda events, pairs: pairs > 5, camera=False, story=Story(lost=2), judged=short
    )
    progress = trial_session.progress(session.plan, session.blinding, trial_log.read(session.log))
    assert progress.closed == "decided"
    assert sum(trial.state == "graded" for trial in progress.trials.values()) == 10
