"""Windows against a loop that follows the definition one sample at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import up_to
from tests.support.pictures import pictured
from tests.support.synthetic import synthetic, synthetic_spec
from vqbet.comparison.share import share
from vqbet.contract import Camera, Demonstrations
from vqbet.coordinates.mirror import doubled
from vqbet.demos.picked import Picked
from vqbet.demos.windows import Windows, complete_chunks


def numbered(lengths: list[int]) -> Demonstrations:
    """Demonstrations in which every number says its step: observation [step, -step], action [step]."""
    steps = np.arange(sum(lengths), dtype=np.float32)
    ends = np.cumsum(lengths, dtype=np.int64)
    return Demonstrations(synthetic_spec(D=2, A=1), np.stack([steps, -steps], 1), steps[:, None], steps / 10, ends, {})


def one_window(demos: Demonstrations, current: int, T: int, H: int) -> tuple[list, list, list]:
    """The window of one step, written down slot by slot."""
    episode = next(index for index, end in enumerate(demos.episode_ends) if current < end)
    first = 0 if episode == 0 else int(demos.episode_ends[episode - 1])
    last = int(demos.episode_ends[episode]) - 1
    observation, action, valid = [], [], []
    for slot in range(T + H - 1):
        step = current - (T - 1) + slot
        nearest = first if step < first else last if step > last else step
        if slot < T:
            observation.append(demos.observation[nearest])
        action.append(demos.action[nearest])
        valid.append(first <= step <= last)
    return observation, action, valid


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    T=st.integers(1, 12),
    H=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_every_window_is_what_a_loop_over_its_slots_gives(lengths: list[int], T: int, H: int, seed: int) -> None:
    demos = numbered(lengths)
    windows = Windows(demos, window=T, chunk=H)
    order = np.random.default_rng(seed).permutation(len(windows))
    batch = windows.gather(order)
    assert len(windows) == sum(lengths)
    assert [batch[name].shape for name in ("observation", "action", "valid")] == [
        (len(order), T, 2),
        (len(order), T + H - 1, 1),
        (len(order), T + H - 1),
    ]
    assert [batch[name].dtype for name in ("observation", "action", "valid")] == [np.float32, np.float32, np.bool_]
    for row, current in enumerate(order):
        observation, action, valid = one_window(demos, int(current), T, H)
        np.testing.assert_array_equal(batch["observation"][row], observation)
        np.testing.assert_array_equal(batch["action"][row], action)
        np.testing.assert_array_equal(batch["valid"][row], valid)


@up_to(30)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), T=st.integers(1, 6), H=st.integers(1, 6))
def test_no_window_sees_two_episodes(lengths: list[int], T: int, H: int) -> None:
    demos = numbered(lengths)
    batch = Windows(demos, window=T, chunk=H).gather(np.arange(sum(lengths)))
    episode = np.repeat(np.arange(len(lengths)), lengths)
    for name in ("observation", "action"):
        seen = episode[batch[name][:, :, 0].astype(int)]
        assert (seen == episode[:, None]).all()


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_one_epoch_has_every_step_as_current_step_once(batch: int) -> None:
    windows = Windows(numbered([5, 1, 30, 2]), window=4, chunk=3)
    order = np.random.default_rng(0).permutation(len(windows))
    parts = [windows.gather(order[start : start + batch]) for start in range(0, len(order), batch)]
    current = np.concatenate([part["observation"][:, -1, 0] for part in parts])
    assert sorted(current) == list(range(len(windows)))
    assert all(part["valid"][:, 3].all() for part in parts)  # position T - 1 was recorded, in every window


def test_padding_tiles_the_first_step_and_repeats_the_last_action() -> None:
    windows = Windows(numbered([4, 3]), window=3, chunk=2)
    batch = windows.gather(np.array([4, 6]))
    assert batch["observation"][:, :, 0].tolist() == [[4, 4, 4], [4, 5, 6]]
    assert batch["action"][:, :, 0].tolist() == [[4, 4, 4, 5], [4, 5, 6, 6]]
    assert batch["valid"].tolist() == [[False, False, True, True], [True, True, True, False]]


def test_the_chunk_of_a_target_starts_at_its_own_step() -> None:
    T, H = 5, 4
    demos = numbered([6, 9, 3])
    batch = Windows(demos, window=T, chunk=H).gather(np.arange(18))
    for position in range(T):
        target = batch["valid"][:, position]
        own_step = batch["observation"][target, position, 0]
        np.testing.assert_array_equal(batch["action"][target, position, 0], own_step)


def test_windows_of_one_step_are_the_chunks_of_every_step_each_once() -> None:
    batch = Windows(numbered([3, 2]), window=1, chunk=3).gather(np.arange(5))
    assert batch["action"][:, :, 0].tolist() == [[0, 1, 2], [1, 2, 2], [2, 2, 2], [3, 4, 4], [4, 4, 4]]


def test_a_gathered_batch_is_the_callers_own() -> None:
    demos = numbered([4])
    batch = Windows(demos, window=2, chunk=2).gather(np.arange(4))
    for array in batch.values():
        array[...] = 0
    assert demos.observation[3, 0] == 3
    assert demos.action[3, 0] == 3


def test_windows_of_an_empty_batch() -> None:
    batch = Windows(numbered([4]), window=2, chunk=3).gather(np.array([], np.int64))
    assert [array.shape for array in batch.values()] == [(0, 2, 2), (0, 4, 1), (0, 4)]


@pytest.mark.parametrize("index", [[-1], [4], [0, 7]])
def test_a_step_that_is_not_there_is_refused(index: list[int]) -> None:
    with pytest.raises(IndexError, match="expected windows from 0 to 3"):
        Windows(numbered([4]), window=2, chunk=2).gather(np.array(index))


@pytest.mark.parametrize("index", [np.array([0.0]), np.array([[0]]), np.array([True]), np.array([0], np.uint64)])
def test_an_index_of_another_kind_is_refused(index: np.ndarray) -> None:
    with pytest.raises(IndexError, match="expected a vector of signed integers"):
        Windows(numbered([4]), window=2, chunk=2).gather(index)


@pytest.mark.parametrize(("window", "chunk"), [(0, 1), (1, 0), (-3, 2)])
def test_windows_and_chunks_have_at_least_one_step(window: int, chunk: int) -> None:
    with pytest.raises(ValueError, match=f"window={window}, chunk={chunk}"):
        Windows(numbered([4]), window=window, chunk=chunk)


@pytest.mark.parametrize("ends", [[3, 3, 6], [4, 2, 6], [2, 5], [2, 7]])
def test_ends_that_do_not_cut_the_steps_are_refused(ends: list[int]) -> None:
    with pytest.raises(ValueError, match="expected episode_ends to rise"):
        Windows(replace(numbered([6]), episode_ends=np.array(ends)), window=2, chunk=2)


def test_synthetic_demonstrations_are_equal_for_an_equal_seed_and_bimodal() -> None:
    first, second, other = synthetic(20, seed=3), synthetic(20, seed=3), synthetic(20, seed=4)
    np.testing.assert_array_equal(first.observation, second.observation)
    assert not np.array_equal(first.observation, other.observation)
    assert np.abs(first.observation).max() < 1.5
    sides = [part[:, 1].mean() for part in np.split(first.action, first.episode_ends[:-1])]
    assert min(np.abs(sides)) > 0.2
    assert sum(side > 0 for side in sides) == 10


def corrected() -> Demonstrations:
    """Three episodes of six steps; a person acts in the second one at steps 8, 9 and 10, and nobody in the others."""
    return replace(numbered([6, 6, 6]), intervention=np.isin(np.arange(18), [8, 9, 10]))


def test_all_steps_are_learned_from_unless_only_corrections_are() -> None:
    plain, marked = Windows(numbered([6, 6, 6]), window=3, chunk=2), Windows(corrected(), window=3, chunk=2)
    for name, array in plain.gather(np.arange(18)).items():
        np.testing.assert_array_equal(marked.gather(np.arange(18))[name], array)


def test_only_corrections_of_an_episode_with_interventions() -> None:
    windows = Windows(corrected(), window=3, chunk=2, corrections="only")
    assert windows.steps.tolist() == [*range(6), 8, 9, 10, *range(12, 18)]
    batch = windows.gather(np.arange(len(windows)))
    assert batch["observation"][6:9, :, 0].tolist() == [[6, 7, 8], [7, 8, 9], [8, 9, 10]]  # what led there is seen
    assert batch["valid"][6:9].tolist() == [
        [False, False, True, True],
        [False, True, True, True],
        [True, True, True, False],  # the policy acted again after step 10
    ]
    whole = Windows(numbered([6, 6, 6]), window=3, chunk=2).gather(np.array([0, 5, 12]))
    for name, array in whole.items():
        np.testing.assert_array_equal(batch[name][[0, 5, 9]], array)


def test_chunks_of_corrections_are_the_persons_from_end_to_end() -> None:
    chunks = complete_chunks(corrected(), 3, "only")[:, :, 0]
    assert chunks.tolist() == [[s, s + 1, s + 2] for s in (0, 1, 2, 3, 8, 12, 13, 14, 15)]


def test_mirror_images_keep_the_marks() -> None:
    twice = doubled(corrected(), lambda demos: (-demos.observation, -demos.action))
    assert Windows(twice, window=1, chunk=1, corrections="only").steps.tolist() == [
        *(s for s in range(18) if not 6 <= s < 12 or s in (8, 9, 10)),
        *(s + 18 for s in range(18) if not 6 <= s < 12 or s in (8, 9, 10)),
    ]


TWO = (Camera("top", 6, 8), Camera("wrist", 4, 4))


@given(T=st.integers(1, 6), H=st.integers(1, 4), seed=st.integers(0, 99))
def test_pictures_are_those_of_the_observed_steps(T: int, H: int, seed: int) -> None:
    demos = pictured(2, cameras=TWO)
    windows = Windows(demos, window=T, chunk=H)
    order = np.random.default_rng(seed).permutation(len(windows))[:7]
    batch = windows.gather(order)
    assert set(batch) == {"observation", "action", "valid", "camera/top", "camera/wrist"}
    steps = np.arange(len(demos.action), dtype=np.float32)[:, None]
    numbered = replace(demos, observation=steps, spec=replace(demos.spec, cameras=()), cameras={})
    seen = Windows(numbered, window=T, chunk=H).gather(order)["observation"][..., 0].astype(int)
    for name, frames in demos.cameras.items():
        np.testing.assert_array_equal(batch[f"camera/{name}"], frames[seen])


def test_who_needs_no_pictures_reads_none() -> None:
    class Unread:
        shape = (10**6, 6, 8, 3)

        def __getitem__(self, steps: np.ndarray) -> np.ndarray:
            raise AssertionError("read")

    demos = pictured(2)
    Unread.shape = (len(demos.action), 24, 32, 3)
    unread = replace(demos, cameras={"top": Unread()})
    assert len(complete_chunks(unread, 3)) == len(complete_chunks(demos, 3))
    batch = Windows(unread, window=2, chunk=2, pictures=False).gather(np.arange(9))
    assert set(batch) == {"observation", "action", "valid"}
    with pytest.raises(ValueError, match=r"camera 'top': expected \d+ pictures, one per step, got 3"):
        Windows(replace(demos, cameras={"top": np.zeros((3, 24, 32, 3), np.uint8)}), window=2, chunk=2)


def test_a_share_of_the_demonstrations_has_the_pictures_of_its_steps() -> None:
    demos = pictured(6)
    half = share(demos, 0.5, seed=3)
    steps = np.flatnonzero(np.isin(demos.observation[:, 0], half.observation[:, 0]))
    assert half.cameras["top"].shape == (len(half.action), 24, 32, 3)
    np.testing.assert_array_equal(half.cameras["top"][np.arange(len(steps))], demos.cameras["top"][steps])
    wrong: list[list[int]] = [[-1], [len(steps)]]
    for index in wrong:
        with pytest.raises(IndexError):
            Picked(demos.cameras["top"], steps)[np.array(index)]
