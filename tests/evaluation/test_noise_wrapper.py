"""Disturbed worlds: exactly the world without noise, the noise that was asked for, and each row on its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import up_to
from vqbet.contract import Channel, Demonstrations, Env, Spec, WorldError
from vqbet.evaluation import rollout
from vqbet.evaluation.noise import Disturbed
from vqbet.evaluation.rollout import Label
from vqbet.policies.noop import NoOp
from vqbet.tasks.blockpush.world import BlockPush
from vqbet.tasks.pusht.world import PushT

SPEC = Spec(
    task="still",
    observation=(Channel("x", "m", -1.0, 1.0), Channel("y", "mm", -1000.0, 3000.0), Channel("grip", "", 0.0, 1.0)),
    action=(Channel("dx", "m", -0.1, 0.1), Channel("dy", "mm", -50.0, 50.0)),
    control_hz=10.0,
    action_kind="relative",
    frame="table",
)
HALF = np.array([1.0, 2000.0, 0.5])
HALF_ACTION = np.array([0.1, 50.0])


class Still:
    """A world in which nothing moves: every observation is zero, so that what is seen is noise. Keeps the actions."""

    spec, goal, max_steps = SPEC, ("x",), 1000

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        self.count, self.executed = len(seeds), list[np.ndarray]()
        return np.zeros((len(seeds), 3), np.float32)

    def step(self, action: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.executed.append(action)
        return np.zeros((len(rows), 3), np.float32), np.zeros(len(rows), bool)

    def goals(self) -> np.ndarray:
        return np.full((self.count, 1), 0.25, np.float32)

    def metrics(self) -> dict[str, np.ndarray]:
        return {"score": np.full(self.count, 0.5), "success": np.zeros(self.count, bool)}

    def render(self, row: int) -> np.ndarray:
        return np.full((2, 2, 3), row, np.uint8)


def disturbed(env: Env | None = None, seen: float = 0.0, done: float = 0.0, **options: Any) -> Disturbed:
    return Disturbed(env or Still(), observation_noise=seen, action_noise=done, **options)


def watch(env: Env, seeds: list[int], steps: int, rows: list[int] | None = None) -> np.ndarray:
    """What is seen, (steps + 1, rows, D), while nothing is done; only `rows` are stepped."""
    first, chosen = env.reset(np.array(seeds)), np.arange(len(seeds)) if rows is None else np.array(rows)
    still = np.zeros((len(chosen), len(env.spec.action)), np.float32)
    return np.stack([first[chosen], *(env.step(still, chosen)[0] for _ in range(steps))])


@pytest.mark.parametrize("make", [BlockPush, PushT, lambda: BlockPush(sides="drawn", asked=True)])
def test_without_noise_it_is_the_world(make: Any) -> None:
    plain, same, rows = make(), disturbed(make()), np.arange(3)
    span = np.array([2 * channel.high for channel in plain.spec.action])  # beyond the limits as well
    random = np.random.default_rng(0)
    one, two = plain.reset(rows + 5), same.reset(rows + 5)
    for _ in range(20):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == two.dtype
        action = random.uniform(-span, span, (3, 2))
        (one, ended), (two, ended_too) = plain.step(action, rows), same.step(action, rows)
        np.testing.assert_array_equal(ended, ended_too)
    for name, values in plain.metrics().items():
        np.testing.assert_array_equal(same.metrics()[name], values)
    np.testing.assert_array_equal(plain.goals(), same.goals())


def test_what_it_does_not_disturb_is_the_world_s() -> None:
    env = Still()
    noisy = disturbed(env, 0.1, 0.1)
    noisy.reset(np.arange(2))
    assert (noisy.spec, noisy.goal, noisy.max_steps) == (SPEC, ("x",), 1000)
    assert noisy.goals().tolist() == [[0.25], [0.25]]
    assert noisy.metrics()["score"].tolist() == [0.5, 0.5]
    assert noisy.render(1).tolist() == env.render(1).tolist()


def test_what_is_seen_is_as_wrong_as_was_asked_for() -> None:
    seen = watch(disturbed(seen=0.02), list(range(40)), 250)
    assert seen.dtype == np.float32
    seen = seen / (0.02 * HALF)
    flat = seen.reshape(-1, 3)
    assert np.abs(flat.mean(axis=0)).max() < 4 / len(flat) ** 0.5
    assert np.abs(flat.std(axis=0) - 1).max() < 0.04
    assert np.abs(np.corrcoef(flat.T) - np.eye(3)).max() < 0.04
    assert np.abs(np.mean(seen[1:] * seen[:-1])) < 0.04  # new at every step
    assert np.abs(np.mean(seen[:, 1:] * seen[:, :-1])) < 0.04  # and in every episode
    assert np.abs(flat).max() > 3  # not held within anything


def test_what_is_done_is_as_wrong_as_was_asked_for_and_possible() -> None:
    env = Still()
    noisy, rows = disturbed(env, done=0.1), np.arange(200)
    noisy.reset(rows)
    asked = np.zeros((200, 2), np.float32)
    asked[:, 0] = 0.1  # at its limit
    for _ in range(20):
        noisy.step(asked, rows)
    executed = np.concatenate(env.executed)
    assert executed.dtype == np.float32
    assert np.isclose(executed[:, 1].std(), 0.1 * HALF_ACTION[1], rtol=0.05)
    assert (np.abs(executed) <= np.float32(HALF_ACTION)).all()
    assert 0.45 < (executed[:, 0] == np.float32(0.1)).mean() < 0.55
    assert (asked[:, 0] == np.float32(0.1)).all(), "the policy's own array was changed"


@up_to(25)
@given(seeds=st.lists(st.integers(0, 2**40), min_size=2, max_size=6, unique=True), row=st.integers(0, 1))
def test_the_noise_of_an_episode_depends_on_its_seed_alone(seeds: list[int], row: int) -> None:
    together = watch(disturbed(seen=0.1), seeds, 5)
    np.testing.assert_array_equal(watch(disturbed(seen=0.1), [seeds[row]], 5)[:, 0], together[:, row])
    np.testing.assert_array_equal(watch(disturbed(seen=0.1), seeds[::-1], 5)[:, ::-1], together)
    np.testing.assert_array_equal(watch(disturbed(seen=0.1), seeds, 5, rows=[row])[:, 0], together[:, row])
    assert (together[:, 0] != together[:, 1]).all()
    env = disturbed(seen=0.1)
    watch(env, [seeds[0]], 3)
    np.testing.assert_array_equal(watch(env, seeds, 5), together)  # nothing leaks from the episodes before


def test_twice_as_strong_is_the_same_noise_doubled() -> None:
    once, twice = (watch(disturbed(seen=seen), [1, 2], 10) for seen in (0.05, 0.1))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)
    np.testing.assert_array_equal(watch(disturbed(seen=0.05, done=0.3), [1, 2], 10), once)
    envs = Still(), Still()
    for env, seen in zip(envs, (0.0, 0.2), strict=True):
        watch(disturbed(env, seen, 0.01), [1, 2], 10)
    np.testing.assert_array_equal(envs[0].executed, envs[1].executed)


def test_demonstrations_say_how_far_channels_go() -> None:
    observation = np.array([[0.0, 0, 7], [0.5, 10, 7], [0.2, 4, 7]], np.float32)
    action = np.array([[0.01, -5], [0.01, 5], [0.01, 0]], np.float32)
    demos = Demonstrations(SPEC, observation, action, np.arange(3) / 10, np.array([3]), {})
    env = Still()
    seen = watch(disturbed(env, 0.1, 0.1, demos=demos), list(range(50)), 100)
    by_limits = watch(disturbed(seen=0.1), list(range(50)), 100)
    np.testing.assert_allclose(seen, by_limits * [0.25, 5, 0] / HALF, rtol=1e-5)
    executed = np.concatenate(env.executed)
    assert (executed[:, 0] == 0).all()
    assert np.isclose(executed[:, 1].std(), 0.5, rtol=0.05)


def test_a_disturbed_world_is_played_like_any_other() -> None:
    env = disturbed(PushT(max_steps=5), 0.01, 0.01)
    label = Label("pusht", "noop", "", "p", "this machine")
    played = rollout.play(env, NoOp(env.spec), [7, 8, 9], label, film=[0])
    assert [record.steps for record in played.records] == [5, 5, 5]
    assert played.records == rollout.play(env, NoOp(env.spec), [7, 8, 9], label).records
    calm = rollout.play(PushT(max_steps=5), NoOp(env.spec), [7, 8, 9], label)
    error = played.paths[0][0] - calm.paths[0][0]
    assert 0.3 < np.abs(error).mean() < 10  # px


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
@pytest.mark.parametrize("name", ["observation_noise", "action_noise"])
def test_noise_that_is_none_is_refused(name: str, value: float) -> None:
    with pytest.raises(WorldError, match=f"{name}: expected a finite number >= 0, got {value}"):
        Disturbed(Still(), **{"observation_noise": 0.0, "action_noise": 0.0, name: value})


@pytest.mark.parametrize(
    ("action", "rows", "sentence"),
    [
        (np.zeros((2, 3)), [0, 1], r"finite actions of shape \(2, 2\), got shape \(2, 3\)"),
        (np.array([[np.inf, 0.0]]), [0], r"finite actions of shape \(1, 2\)"),
        (np.zeros((1, 2)), [2], r"rows are not all among 2 episodes"),
        (np.zeros((1, 2)), [-1], r"rows are not all among 2 episodes"),
    ],
)
def test_senseless_steps_are_refused(action: np.ndarray, rows: list[int], sentence: str) -> None:
    env = disturbed(seen=0.1, done=0.1)
    env.reset(np.arange(2))
    with pytest.raises(WorldError, match=f"disturbed still: .*{sentence}"):
        env.step(action, np.array(rows))


def test_ranges_that_are_none_are_refused() -> None:
    endless = Still()
    endless.spec = replace(SPEC, observation=(SPEC.observation[0], Channel("z", "m", -np.inf, np.inf)))
    with pytest.raises(WorldError, match="'z' has no limits to take its noise from; give demonstrations"):
        disturbed(endless, 0.1)
    other = replace(SPEC, control_hz=5.0)
    demos = Demonstrations(other, np.zeros((2, 3)), np.zeros((2, 2)), np.arange(2), np.array([2]), {})
    with pytest.raises(WorldError, match=r"of another spec: control_hz: 10\.0 here, 5\.0 there"):
        disturbed(demos=demos)
