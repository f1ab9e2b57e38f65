"""Goals against a definition written down one sample at a time: later in the same episode, near and far alike."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import up_to
from tests.support.pictures import pictured
from tests.support.synthetic import synthetic_spec
from vqbet.contract import Demonstrations
from vqbet.demos.goals import VARIANTS, GoalWindows, windows
from vqbet.demos.windows import Windows
from vqbet.stages import worlds
from vqbet.tasks import TASKS

CHANNELS = ("feature_2", "feature_0")  # another order than the observation's
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def numbered(lengths: list[int]) -> Demonstrations:
    """Demonstrations in which every number says its step: observation [step, -step, step + 0.5], action [step]."""
    steps = np.arange(sum(lengths), dtype=np.float32)
    observation = np.stack([steps, -steps, steps + 0.5], 1)
    ends = np.cumsum(lengths, dtype=np.int64)
    return Demonstrations(synthetic_spec(D=3, A=1), observation, steps[:, None], steps / 10, ends, {})


def with_goals(demos: Demonstrations, T: int = 3, H: int = 2, G: int = 1) -> GoalWindows:
    return GoalWindows(Windows(demos, window=T, chunk=H), demos, channels=CHANNELS, steps=G)


def every_goal(lengths: list[int], G: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all windows: current step (N, 1), its episode's last (N, 1), and the steps of its goals (N, VARIANTS, G)."""
    made = with_goals(numbered(lengths), G=G)
    steps = made.gather(np.arange(len(made)))["goal"][..., 1].astype(int)
    last = np.repeat(np.cumsum(lengths) - 1, lengths)
    return np.arange(sum(lengths))[:, None], last[:, None], steps.reshape(-1, VARIANTS, G)


@given(lengths=LENGTHS, G=st.integers(1, 12), seed=st.integers(0, 1000))
def test_every_goal_is_what_a_loop_over_its_steps_gives(lengths: list[int], G: int, seed: int) -> None:
    demos = numbered(lengths)
    made = with_goals(demos, G=G)
    index = np.random.default_rng(seed).integers(len(made), size=50)
    goal = made.gather(index)["goal"]
    assert len(made) == sum(lengths) * VARIANTS
    assert goal.shape == (50, G, 2)
    assert goal.dtype == np.float32
    for row, number in enumerate(index.tolist()):
        current, variant = divmod(number, VARIANTS)
        episode = int(np.searchsorted(demos.episode_ends, current, side="right"))
        first, end = int(demos.episode_starts[episode]), int(demos.episode_ends[episode])
        last = current + math.ceil((variant + 1) * (end - 1 - current) / VARIANTS)
        wanted = [max(last - back, first) for back in reversed(range(G))]
        np.testing.assert_array_equal(goal[row], demos.observation[wanted][:, [2, 0]])


@given(lengths=LENGTHS)
def test_a_goal_is_later_in_the_same_episode(lengths: list[int]) -> None:
    current, last, steps = every_goal(lengths)
    goal = steps[..., 0]
    assert ((goal > current) | (current == last)).all()
    assert (goal <= last).all()
    assert (goal[:, -1:] == last).all()
    assert (np.diff(goal, axis=1) >= 0).all()


@given(lengths=LENGTHS)
def test_near_and_far_are_asked_for_alike(lengths: list[int]) -> None:
    """Where V goals share r steps, each step ahead is asked for by V / r of them, rounded up or down."""
    current, last, steps = every_goal(lengths)
    for step, left in enumerate((last - current)[:, 0].tolist()):
        ahead = steps[step, :, 0] - step
        if left:
            asked = np.bincount(ahead, minlength=left + 1)[1:]
            assert set(asked) <= {VARIANTS // left, -(-VARIANTS // left)}
        else:
            assert (ahead == 0).all()


@up_to(30)
@given(lengths=LENGTHS, G=st.integers(2, 12))
def test_goal_steps_follow_one_another_and_begin_with_the_episode(lengths: list[int], G: int) -> None:
    first = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)[:, None, None]
    _, _, steps = every_goal(lengths, G)
    np.testing.assert_array_equal(steps, np.maximum(steps[..., -1:] + np.arange(1 - G, 1), first))
    np.testing.assert_array_equal(steps[..., -1], every_goal(lengths)[2][..., 0])


def test_channels_come_in_the_order_asked_for() -> None:
    demos = numbered([20])
    made = Windows(demos, window=1, chunk=1)
    for channels, columns in ((("feature_1",), [1]), (("feature_1", "feature_0"), [1, 0]), (CHANNELS, [2, 0])):
        last = GoalWindows(made, demos, channels=channels, steps=1).gather(np.array([VARIANTS - 1]))["goal"]
        np.testing.assert_array_equal(last[0, 0], demos.observation[19, columns])


@up_to(30)
@given(lengths=LENGTHS, T=st.integers(1, 6), H=st.integers(1, 6), seed=st.integers(0, 1000))
def test_the_rest_is_the_plain_window_and_all_is_a_function_of_the_index(
    lengths: list[int], T: int, H: int, seed: int
) -> None:
    demos = numbered(lengths)
    plain, made = Windows(demos, window=T, chunk=H), with_goals(demos, T, H, G=2)
    index = np.random.default_rng(seed).integers(len(made), size=30)
    batch, expected = made.gather(index), plain.gather(index // VARIANTS)
    assert set(batch) == {*expected, "goal"}
    for name, values in expected.items():
        np.testing.assert_array_equal(batch[name], values)
    for name, values in with_goals(demos, T, H, G=2).gather(index[::-1]).items():
        np.testing.assert_array_equal(values[::-1], batch[name])


def test_every_window_has_its_goals_once_per_epoch() -> None:
    made = with_goals(numbered([5, 20]))
    index = np.random.default_rng(0).permutation(len(made))
    current = np.concatenate([made.gather(part)["observation"][:, -1, 0] for part in np.split(index, 25)])
    assert (np.bincount(current.astype(int)) == VARIANTS).all()


def test_a_goal_is_the_callers_own_and_an_empty_batch_has_none() -> None:
    demos = numbered([9])
    made = with_goals(demos, G=4)
    made.gather(np.arange(16))["goal"][...] = -1
    assert demos.observation[8, 0] == 8
    assert made.gather(np.arange(16))["goal"].min() >= 0
    assert made.gather(np.array([], np.int64))["goal"].shape == (0, 4, 2)


@pytest.mark.parametrize("index", [[-1], [4 * VARIANTS], [0, 4 * VARIANTS + 7]])
def test_a_window_that_is_not_there_is_refused(index: list[int]) -> None:
    with pytest.raises(IndexError, match="expected windows from 0 to 3"):
        with_goals(numbered([4])).gather(np.array(index))


@pytest.mark.parametrize("index", [np.array([0.0]), np.array([[0]]), np.array([True]), np.array([0], np.uint64)])
def test_an_index_of_another_kind_is_refused(index: np.ndarray) -> None:
    with pytest.raises(IndexError, match="expected a vector of signed integers"):
        with_goals(numbered([4])).gather(index)


@pytest.mark.parametrize(
    ("channels", "steps", "sentence"),
    [
        (("feature_0",), 0, "1 goal step or more .* got 0 of"),
        ((), 1, "channels among"),
        (("feature_0", "colour"), 1, "channels among .*'feature_2'.* got 1 of .*'colour'"),
    ],
)
def test_goals_that_cannot_be_made_are_refused(channels: tuple[str, ...], steps: int, sentence: str) -> None:
    demos = numbered([4])
    with pytest.raises(ValueError, match=sentence):
        GoalWindows(Windows(demos, window=1, chunk=1), demos, channels=channels, steps=steps)


def test_windows_of_other_demonstrations_are_refused() -> None:
    with pytest.raises(ValueError, match="expected windows of these 4 steps, got 5"):
        GoalWindows(Windows(numbered([5]), window=1, chunk=1), numbered([4]), channels=CHANNELS, steps=1)


def test_without_channels_windows_are_plain() -> None:
    demos = numbered([6, 9])
    plain = windows(demos, window=3, chunk=2, goal=(), goal_steps=0)
    made = windows(demos, window=3, chunk=2, goal=CHANNELS, goal_steps=4)
    assert isinstance(plain, Windows)
    assert isinstance(made, GoalWindows)
    assert made.gather(np.array([7]))["goal"].shape == (1, 4, 2)
    np.testing.assert_array_equal(
        made.gather(np.array([7 * VARIANTS]))["action"], plain.gather(np.array([7]))["action"]
    )


@pytest.mark.parametrize("task", ["blockpush", "blockpush_drawn", "kitchen", "pusht"])
def test_a_world_asks_for_what_its_policies_are_told(task: str) -> None:
    plain = worlds.make(task)
    still = Demonstrations(
        spec=plain.spec,
        observation=np.zeros((30, len(plain.spec.observation)), np.float32),
        action=np.zeros((30, len(plain.spec.action)), np.float32),
        time_s=np.arange(30) / plain.spec.control_hz,
        episode_ends=np.array([30]),
        columns={},
        state=np.zeros((30, 5)),
    )
    asking = worlds.make(worlds.name(task, asked=True), still)
    assert asking.goal == TASKS[task].goal
    assert asking.spec == plain.spec
    assert plain.goal == ()
    seeds = np.array([3, 4])
    np.testing.assert_array_equal(asking.reset(seeds), plain.reset(seeds))
    assert asking.goals().shape == (2, len(asking.goal))
    assert plain.goals().shape == (2, 0)
    assert asking.goals().dtype == plain.goals().dtype == np.float32


def test_goals_of_corrections_are_those_of_the_same_steps() -> None:
    demos = replace(numbered([6, 5]), intervention=np.isin(np.arange(11), [2, 3]))
    chosen = {"window": 2, "chunk": 1, "goal": CHANNELS, "goal_steps": 2}
    every, only = windows(demos, **chosen), windows(demos, **chosen, corrections="only")
    steps = np.array([2, 3, *range(6, 11)])
    assert len(only) == VARIANTS * len(steps)
    numbers = (steps[:, None] * VARIANTS + np.arange(VARIANTS)).ravel()
    np.testing.assert_array_equal(only.gather(np.arange(len(only)))["goal"], every.gather(numbers)["goal"])


def test_windows_with_goals_have_the_pictures_of_their_observations() -> None:
    demos = pictured(2)
    made = windows(demos, window=3, chunk=2, goal=CHANNELS, goal_steps=1)
    batch = made.gather(np.array([0, 5 * VARIANTS, 40 * VARIANTS + 3]))
    plain = Windows(demos, window=3, chunk=2).gather(np.array([0, 5, 40]))
    np.testing.assert_array_equal(batch["camera/top"], plain["camera/top"])
    assert batch["goal"].shape == (3, 1, 2)
