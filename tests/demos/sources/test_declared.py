"""Demonstrations out of a source as a task declares it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.made_source import HZ, MadeSource, made
from vqbet.contract import Camera, Channel, Demonstrations, Spec, StoreError
from vqbet.demos.sources import declared
from vqbet.demos.sources.declared import Declaration

PAIR = (Channel("shoulder", "rad", -9.0, 9.0), Channel("elbow", "rad", -9.0, 9.0))
FRONT = "camera/Front View"
PLAIN = Declaration(Spec("arm", PAIR, PAIR, HZ, "absolute", ""), {"state": 2}, {"action": 2})
SEEN = replace(PLAIN, spec=replace(PLAIN.spec, cameras=(Camera("front", 4, 6, "av1"),)), cameras={"front": FRONT})


def lacking(*names: str) -> MadeSource:
    """A source whose episodes 1 and 4 lack the files of these fields."""
    source = made(pictures=True)
    told = [replace(one, missing=names if number in (1, 4) else ()) for number, one in enumerate(source.episodes)]
    return replace(source, episodes=tuple(told))


def test_fields_become_channels() -> None:
    source = made()
    demos = declared.demonstrations(source, PLAIN)
    assert np.array_equal(demos.observation, np.concatenate([one["state"] for one in source.values]))
    assert np.array_equal(demos.action, np.concatenate([one["action"] for one in source.values]))
    assert demos.lengths.tolist() == [one.steps for one in source.episodes]
    assert np.allclose(demos.time_s[demos.episode_starts], 0.0)
    assert demos.columns["source"].tolist()[:2] == ["npz take-0", "npz take-1"]
    assert demos.columns["success"].all()
    assert declared.unused(source, PLAIN) == ["effort"]


def test_several_fields_stand_in_the_order_of_the_declaration() -> None:
    source = made()
    effort = Channel("effort", "", -9.0, 9.0)
    spec = replace(PLAIN.spec, observation=(effort, *PAIR))
    demos = declared.demonstrations(source, replace(PLAIN, spec=spec, observation={"effort": 1, "state": 2}))
    assert np.array_equal(demos.observation[:, 1:], np.concatenate([one["state"] for one in source.values]))


def test_labels_of_the_source_are_kept() -> None:
    source = made()
    labels = {"success": False, "session": "tuesday", "operator": "ann"}
    source = replace(source, episodes=(replace(source.episodes[0], labels=labels), *source.episodes[1:]))
    columns = declared.demonstrations(source, PLAIN).columns
    assert columns["success"].tolist() == [False] + [True] * 5
    assert (columns["session"][0], columns["operator"][0], columns["session"][1]) == ("tuesday", "ann", "")


def seen(source: MadeSource) -> Demonstrations:
    return declared.demonstrations(source, SEEN)


def test_pictures_are_decoded_when_they_are_asked_for() -> None:
    source = made(pictures=True)
    frames = seen(source).cameras["front"]
    assert source.opened == []
    total = sum(one.steps for one in source.episodes)
    assert frames.shape == (total, 4, 6, 3)
    wanted = np.concatenate([one[FRONT] for one in source.values])
    for start in range(0, total, 50):
        steps = np.arange(start, min(start + 50, total))
        assert np.array_equal(frames[steps][:, 0, 0, 0], wanted[steps])
    assert source.opened == [(number, FRONT) for number in range(6)], "each episode is decoded once"


def test_pictures_in_any_order_and_shape() -> None:
    source = made(pictures=True)
    frames, wanted = seen(source).cameras["front"], np.concatenate([one[FRONT] for one in source.values])
    steps = np.array([[40, 3, 3], [41, 0, 120]])
    assert np.array_equal(frames[steps][..., 0, 0, 0], wanted[steps])
    with pytest.raises(IndexError, match="expected steps from 0 to"):
        frames[np.array([len(wanted)])]


def test_too_few_pictures() -> None:
    source = made(pictures=True)
    source.values[2][FRONT] = source.values[2][FRONT][:-1]
    frames = seen(source).cameras["front"]
    with pytest.raises(StoreError, match=r"episode take-2: camera/Front View: ends after 35 pictures, expected 36"):
        frames[np.arange(frames.shape[0])]


def test_an_episode_without_its_files_is_refused_or_left_out() -> None:
    source = lacking(FRONT)
    with pytest.raises(StoreError, match=r"episode take-1: camera/Front View: .* for 2 of 6 .*arm\.source\.incomplete"):
        seen(source)
    demos = declared.demonstrations(source, replace(SEEN, leave_out=True))
    assert demos.columns["source"].tolist() == [f"npz take-{number}" for number in (0, 2, 3, 5)]
    frames = demos.cameras["front"]
    kept = np.concatenate([source.values[number][FRONT] for number in (0, 2, 3, 5)])
    assert np.array_equal(frames[np.arange(len(kept))][:, 0, 0, 0], kept)
    assert declared.chosen(source, PLAIN) == list(range(6)), "a field that is not used may be missing"


def test_none_is_whole() -> None:
    source = made(pictures=True)
    source = replace(source, episodes=tuple(replace(one, missing=(FRONT,)) for one in source.episodes))
    with pytest.raises(StoreError, match="no episode has all of"):
        declared.demonstrations(source, replace(SEEN, leave_out=True))


def without(name: str) -> MadeSource:
    source = made()
    del source.fields[name]
    return source


@pytest.mark.parametrize(
    ("source", "wanted", "sentence"),
    [
        (without("action"), PLAIN, "has no field 'action', which is declared; there are: effort, state"),
        (made(), replace(PLAIN, action={"action": 3}), "field 'action': expected 3 numbers a step as declared, got 2"),
        (made(), SEEN, "camera 'front': has no field 'camera/Front View'; there are: action, effort, state"),
        (made(), replace(SEEN, cameras={"front": "effort"}), "camera 'front': field 'effort' holds numbers"),
        (
            made(pictures=True),
            replace(PLAIN, observation={FRONT: 2}),
            "2 numbers a step as declared, got video",
        ),
        (made(), replace(PLAIN, spec=replace(PLAIN.spec, control_hz=10.0)), "times are of 20 steps a second"),
    ],
)
def test_not_as_declared(source: MadeSource, wanted: Declaration, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence):
        declared.demonstrations(source, wanted)


def test_rows_that_are_missing() -> None:
    source = made()
    source.values[3]["action"] = source.values[3]["action"][:-2]
    with pytest.raises(StoreError, match="episode take-3: action: expected 39 rows, got 37"):
        declared.demonstrations(source, PLAIN)


def test_without_times_the_clock_is_steady() -> None:
    demos = declared.demonstrations(made(timed=False), PLAIN)
    assert demos.time_s[1] == 1 / HZ
