"""Rollouts: one policy call per step for the running rows only, and every wrong answer named by seed and step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.point import POINT, PointMass, Seeker
from vqbet.contract import Camera, Channel, WorldError
from vqbet.evaluation import records, rollout
from vqbet.evaluation.noise import Disturbed
from vqbet.evaluation.rollout import Label, Play

SEEDS = range(1000, 1012)


def play(env: Any, policy: Any, seeds: Any = SEEDS, **options: Any) -> Play:
    label = Label("point", "candidate", "c" * 64, "p" * 64, "this machine", "undisturbed")
    return rollout.play(env, policy, seeds, label, **options)


def test_episodes_are_played_to_their_end(env: Any, seeker: Any) -> None:
    played = play(env, seeker)
    assert [record.seed for record in played.records] == list(SEEDS)
    for row, record in enumerate(played.records):
        assert (record.world, record.policy, record.digest, record.plan) == ("point", "candidate", "c" * 64, "p" * 64)
        assert (record.machine, record.slice) == ("this machine", "undisturbed")
        assert record.success
        assert record.score == env.metrics()["score"][row]
        assert record.steps == env.steps[row]
        assert record.mode in ("left", "right")
        assert record.metrics == {"distance_m": env.metrics()["distance_m"][row], "arrived_s": record.steps / 10}
        records.check(record, "record")
        assert played.paths[row].shape == (record.steps + 1, 2)
        assert played.paths[row].dtype == np.float32
        assert np.array_equal(played.paths[row][-1], env.position[row].astype(np.float32))
    assert played.timing.act_ms(99) >= played.timing.act_ms(50) > 0
    assert played.timing.steps_per_s > 0


def test_one_call_per_step_with_the_running_rows_only(env: Any, seeker: Any) -> None:
    played = play(env, seeker)
    steps = np.array([record.steps for record in played.records])
    assert len(seeker.asked) == steps.max()
    assert seeker.asked == [np.flatnonzero(steps > step).tolist() for step in range(steps.max())]
    assert len(set(steps)) > 3


def test_an_episode_does_not_depend_on_the_others(env: Any, seeker: Any) -> None:
    together = play(env, seeker).records
    alone = [play(env, seeker, [seed]).records[0] for seed in SEEDS]
    assert together == alone
    assert play(env, seeker, np.array(SEEDS)[::-1]).records == together[::-1]


def test_a_metric_that_an_episode_does_not_have_is_left_out(env: Any, seeker: Any) -> None:
    env.max_steps = 2
    played = play(env, seeker)
    for record in played.records:
        assert ("arrived_s" in record.metrics) == record.success
    assert not all(record.success for record in played.records)


def test_filmed_rows_show_first_and_last_step(env: Any, seeker: Any) -> None:
    played = play(env, seeker, film=[0, 3])
    assert sorted(played.films) == [0, 3]
    for row, film in played.films.items():
        assert len(film.frames) == played.records[row].steps + 1
        assert film.fps == 10
        assert np.array_equal(film.frames[-1], env.render(row))
        assert film.frames[0].shape == (24, 32, 3)


def test_long_films_skip_frames_and_keep_the_last(env: Any, seeker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "MAX_FRAMES", 6)
    monkeypatch.setattr(rollout, "MAX_PATHS", 2)
    seeker.act = lambda observation, rows: np.full((len(rows), 2), 0.001, np.float32)
    played = play(env, seeker, film=[1])
    assert len(played.films[1].frames) == 6  # steps 0, 9, 18, 27, 36 and the last, 40
    assert played.films[1].fps == pytest.approx(10 / 9)
    assert np.array_equal(played.films[1].frames[-1], env.render(1))
    assert len(played.paths) == 2


def test_progress_counts_steps_up_to_the_limit(env: Any, seeker: Any) -> None:
    seen: list[tuple[int, int]] = []
    played = play(env, seeker, progress=lambda done, total: seen.append((done, total)))
    longest = max(record.steps for record in played.records)
    assert seen == [*((step, 40) for step in range(1, longest + 1)), (40, 40)]


def test_a_policy_of_another_spec_is_refused(env: Any, seeker: Any) -> None:
    seeker.spec = replace(env.spec, control_hz=20.0, action=(Channel("dx", "m", -0.1, 0.1),))
    with pytest.raises(
        WorldError, match=r"not made for the world 'point': control_hz: 10\.0 here, 20\.0 there; action"
    ):
        play(env, seeker)


SEEN = replace(POINT, cameras=(Camera("top", 24, 32),))


class Filmed(PointMass):
    """World of a point with a camera, whose pictures are what `render` draws."""

    spec = SEEN

    def cameras(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"top": np.stack([self.render(row) for row in rows])}


class Watcher(Seeker):
    """Seeker that looks at its pictures: the dot is where the point is."""

    def act(self, observation: np.ndarray, rows: np.ndarray, cameras: Any = None) -> np.ndarray:
        dots = (cameras["top"] == (200, 0, 0)).all(3)
        assert dots.sum((1, 2)).tolist() == [1] * len(rows)
        _, y, x = np.nonzero(dots)
        np.testing.assert_allclose(np.stack([x, y], 1), (observation.clip(-1, 1) + 1) / 2 * (31, 23), atol=1.01)
        return super().act(observation, rows)


def test_pictures_of_the_running_rows_reach_a_policy_that_sees() -> None:
    env, policy = Filmed(), Watcher(SEEN)
    played, blind = play(env, policy), play(PointMass(), Seeker())
    assert [record.steps for record in played.records] == [record.steps for record in blind.records]
    disturbed = Disturbed(Filmed(), observation_noise=0.0, action_noise=0.01)
    assert all(record.success for record in play(disturbed, Watcher(SEEN)).records)


@pytest.mark.parametrize(
    ("pictures", "got"),
    [
        ({}, "NoneType"),
        ({"top": np.zeros((12, 24, 30, 3), np.uint8)}, r"uint8 \(12, 24, 30, 3\)"),
        ({"top": np.zeros((12, 24, 32, 3))}, r"float64 \(12, 24, 32, 3\)"),
    ],
)
def test_wrong_pictures_of_a_world_are_refused(pictures: dict[str, np.ndarray], got: str) -> None:
    env = Filmed()
    env.cameras = lambda rows: pictures
    with pytest.raises(WorldError, match=rf"step 0: camera 'top': expected uint8 .*\(12, 24, 32, 3\), got {got}"):
        play(env, Watcher(SEEN))


def test_goals_reach_the_policy_row_by_row(asking: Any, seeker: Any) -> None:
    seeker.goal = ("x", "y")
    together = play(asking, seeker).records
    assert np.array_equal(seeker.told, asking.wanted.astype(np.float32))
    assert len(np.unique(seeker.told[:, 0])) == len(SEEDS)
    assert all(record.success for record in together)
    assert together == [play(asking, seeker, [seed]).records[0] for seed in SEEDS]
    assert play(asking, seeker, np.array(SEEDS)[::-1]).records == together[::-1]


def test_what_a_policy_does_to_its_goals_does_not_change_the_world(asking: Any, seeker: Any) -> None:
    seeker.goal = ("x", "y")
    given: list[np.ndarray] = []
    kept = np.zeros((len(SEEDS), 2), np.float32)
    asking.goals = lambda: kept
    seeker.reset = lambda seeds, goals: given.append(goals)
    play(asking, seeker)
    given[0][...] = 9
    assert (kept == 0).all()


def test_an_unconditional_policy_may_play_where_goals_are_asked_for(asking: Any, seeker: Any) -> None:
    asking.goals = lambda: pytest.fail("it was not to be told")
    played = play(asking, seeker)
    assert seeker.told is None
    assert len(played.records) == len(SEEDS)


def test_a_policy_that_needs_goals_is_refused_where_there_are_none(env: Any, seeker: Any) -> None:
    seeker.goal = ("x", "y")
    with pytest.raises(WorldError, match="'candidate' must be told x, y, the world 'point' asks for nothing: evaluate"):
        play(env, seeker)


@pytest.mark.parametrize("goal", [("y",), ("y", "x"), ("x", "y", "z")])
def test_a_policy_of_other_goals_is_refused(asking: Any, seeker: Any, goal: tuple[str, ...]) -> None:
    seeker.goal = goal
    with pytest.raises(WorldError, match=f"must be told {', '.join(goal)}, the world 'point' asks for x, y"):
        play(asking, seeker)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            lambda action: action[:-1],
            r"step 3: action: expected a float array of shape \(12, 2\), got float32 \(11, 2\)",
        ),
        (lambda action: action[:, :1], r"expected a float array of shape \(12, 2\)"),
        (lambda action: action.astype(np.int64), r"got int64 \(12, 2\)"),
        (lambda action: action.tolist(), "got list"),
        (lambda action: None, "got NoneType"),
        (lambda action: _with(action, np.nan), "seed 1004, step 3: action 'dy' is nan"),
        (lambda action: _with(action, np.inf), "seed 1004, step 3: action 'dy' is inf"),
    ],
)
def test_a_wrong_action_is_named_by_seed_and_step(
    env: Any, seeker: Any, answer: Callable[[np.ndarray], Any], sentence: str
) -> None:
    right = seeker.act

    def act(observation: np.ndarray, rows: np.ndarray) -> Any:
        action = right(observation * 0.1, rows)
        return answer(action) if len(seeker.asked) == 4 else action

    seeker.act = act
    with pytest.raises(WorldError, match=sentence):
        play(env, seeker)


def test_a_wrong_observation_is_named_by_seed_and_step(env: Any, seeker: Any) -> None:
    right = env.step
    env.step = lambda action, rows: (_with(right(action, rows)[0], np.nan), np.zeros(len(rows), bool))
    with pytest.raises(WorldError, match="seed 1004, step 1: observation 'y' is nan"):
        play(env, seeker)


@pytest.mark.parametrize("ended", [np.zeros(3, bool), np.zeros(12), [False] * 12])
def test_wrong_endings_are_refused(env: Any, seeker: Any, ended: Any) -> None:
    right = env.step
    env.step = lambda action, rows: (right(action, rows)[0], ended)
    with pytest.raises(WorldError, match="step 1: expected 12 bools"):
        play(env, seeker)


def test_a_world_that_never_ends_is_stopped(env: Any, seeker: Any) -> None:
    right = env.step
    seeker.act = lambda observation, rows: np.zeros((len(rows), 2), np.float32)
    env.step = lambda action, rows: (
        (right(action, rows)[0], np.zeros(len(rows), bool))
        if env.steps[0] < 39
        else (
            env.position[rows].astype(np.float32),
            np.arange(len(rows)) != 2,
        )
    )
    with pytest.raises(WorldError, match="seed 1002: still running after the world's own limit of 40 steps"):
        play(env, seeker)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"score": None}, r"expected score and success, \['score'\] missing"),
        ({"score": np.full(12, 1.5)}, r"score: expected 0\.\.1, got 1\.5 at seed 1000"),
        ({"score": np.full(12, np.nan)}, r"score: expected 0\.\.1, got nan"),
        ({"success": np.zeros(12)}, "success: expected an array of kind 'b'"),
        ({"mode": np.zeros(12)}, "mode: expected an array of kind 'U'"),
        ({"distance_m": np.zeros(3)}, r"distance_m: expected 12 values, got shape \(3,\)"),
        ({"distance_m": np.full(12, np.inf)}, "distance_m: expected .* without infinities"),
        ({"distance_m": np.full(12, "far")}, "distance_m: expected an array of kind 'fiub'"),
    ],
)
def test_wrong_metrics_are_refused(env: Any, seeker: Any, change: dict[str, Any], sentence: str) -> None:
    right = env.metrics
    env.metrics = lambda: {name: value for name, value in {**right(), **change}.items() if value is not None}
    with pytest.raises(WorldError, match=sentence):
        play(env, seeker)


@pytest.mark.parametrize(
    ("seeds", "film", "sentence"),
    [
        ([], [], "at least one whole number"),
        ([1.5], [], "at least one whole number"),
        ([-1], [], "at least one whole number"),
        ([1, 2, 1], [], "1 of 3 appear more than once"),
        ([1, 2], [2], r"film: expected rows in 0\.\.1, got \[2\]"),
    ],
)
def test_wrong_seeds_are_refused(env: Any, seeker: Any, seeds: list[float], film: list[int], sentence: str) -> None:
    with pytest.raises(WorldError, match=sentence):
        play(env, seeker, seeds, film=film)


def _with(values: np.ndarray, bad: float) -> np.ndarray:
    values = values.copy()
    values[4, 1] = bad
    return values
