"""The baselines: doing nothing, and replaying the nearest demonstration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vqbet.contract import Channel, Demonstrations, Spec, StoreError, WorldError
from vqbet.policies.nearest import NearestDemonstration
from vqbet.policies.noop import NoOp

RELATIVE = Spec(
    task="point",
    observation=(Channel("y", "m", -1.0, 1.0), Channel("x", "m", -1.0, 1.0), Channel("far", "mm", -1e3, 1e3)),
    action=(Channel("x", "m", -1.0, 1.0), Channel("y", "m", -1.0, 1.0)),
    control_hz=10.0,
    action_kind="relative",
    frame="table",
)
ABSOLUTE = replace(RELATIVE, action_kind="absolute")


def demonstrations(spec: Spec = RELATIVE) -> Demonstrations:
    """Three episodes of 2, 3 and 1 steps; element [n, 0] of the actions is n."""
    observation = np.zeros((6, 3), np.float32)
    observation[[0, 2, 5]] = [[-1, 0, 500], [1, 0, 0], [0, 1, 0]]
    return Demonstrations(
        spec=spec,
        observation=observation,
        action=np.stack([np.arange(6), np.ones(6)], axis=1).astype(np.float32),
        time_s=np.arange(6) / 10,
        episode_ends=np.array([2, 5, 6]),
        columns={},
    )


def test_noop_does_nothing_where_actions_are_relative() -> None:
    policy = NoOp(RELATIVE)
    policy.reset(np.array([1, 2]))
    action = policy.act(np.ones((2, 3), np.float32), np.array([0, 1]))
    assert action.dtype == np.float32
    assert action.tolist() == [[0, 0], [0, 0]]


def test_noop_stays_where_it_is_where_actions_are_absolute() -> None:
    policy = NoOp(ABSOLUTE)
    policy.reset(np.array([1]))
    assert policy.act(np.array([[3.0, 4.0, 5.0]], np.float32), np.array([0])).tolist() == [[4, 3]]


def test_noop_cannot_hold_what_is_not_observed() -> None:
    spec = replace(ABSOLUTE, action=(Channel("x", "m", -1.0, 1.0), Channel("grip", "", 0.0, 1.0)))
    with pytest.raises(WorldError, match=r"actions are absolute and grip are not observed \(observed: y, x, far\)"):
        NoOp(spec)


def play(policy: NearestDemonstration, first: list[list[float]], steps: int) -> list[list[float]]:
    """The first channel of each step's actions; observations after the first are noise."""
    random = np.random.default_rng(0)
    rows = np.arange(len(first))
    policy.reset(rows)
    given = [policy.act(np.array(first, np.float32), rows)]
    given += [policy.act(random.normal(size=(len(first), 3)).astype(np.float32), rows) for _ in range(steps - 1)]
    assert all(action.dtype == np.float32 for action in given)
    return np.stack(given)[:, :, 0].T.tolist()


def test_the_nearest_demonstration_is_replayed_then_nothing() -> None:
    policy = NearestDemonstration(demonstrations())
    assert play(policy, [[0.9, 0.1, 0], [-0.9, 0, 500], [0, 1, 0]], 5) == [
        [2, 3, 4, 0, 0],
        [0, 1, 0, 0, 0],
        [5, 0, 0, 0, 0],
    ]


def test_an_absolute_last_action_is_held() -> None:
    policy = NearestDemonstration(demonstrations(ABSOLUTE))
    assert play(policy, [[0.9, 0.1, 0], [0, 1, 0]], 5) == [[2, 3, 4, 4, 4], [5, 5, 5, 5, 5]]


def test_distances_do_not_depend_on_units() -> None:
    """60 mm of `far` weigh 0.25 standard deviations; without normalising they would outweigh x and y."""
    policy = NearestDemonstration(demonstrations())
    assert play(policy, [[-0.9, 0, 440], [0.9, 0, 60]], 1) == [[0], [2]]


def test_a_channel_that_never_varies_is_left_out() -> None:
    demos = demonstrations()
    demos.observation[:, 2] = 7
    assert play(NearestDemonstration(demos), [[0.9, 0, 1e6]], 1) == [[2]]


@pytest.mark.parametrize("policy", [NoOp(RELATIVE), NearestDemonstration(demonstrations())])
def test_baselines_need_no_goals_and_do_not_mind_them(policy: NoOp | NearestDemonstration) -> None:
    observation, rows = np.array([[0.9, 0.1, 0], [-0.9, 0, 500]], np.float32), np.arange(2)
    assert policy.goal == ()
    policy.reset(rows)
    without = policy.act(observation, rows)
    policy.reset(rows, np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(policy.act(observation, rows), without)


def test_rows_are_independent_and_reset_forgets() -> None:
    policy = NearestDemonstration(demonstrations())
    together = play(policy, [[0.9, 0.1, 0], [-0.9, 0, 500]], 3)
    policy.reset(np.arange(2))
    observation = np.array([[-0.9, 0, 500]], np.float32)
    alone = [policy.act(observation, np.array([1]))[0, 0] for _ in range(3)]
    assert alone == together[1]
    assert policy.act(np.array([[0.9, 0.1, 0]], np.float32), np.array([0]))[0, 0] == together[0][0]


def test_of_nothing_nothing_is_nearest() -> None:
    empty = replace(
        demonstrations(),
        observation=np.zeros((0, 3), np.float32),
        action=np.zeros((0, 2), np.float32),
        episode_ends=np.zeros(0, np.int64),
    )
    with pytest.raises(StoreError, match="'point': expected demonstrations to replay, got none"):
        NearestDemonstration(empty)
