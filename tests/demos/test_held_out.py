"""Held-out episodes are chosen by content, copies stay together, and a leaked episode is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.synthetic import synthetic
from vqbet.contract import Demonstrations, ValidationError
from vqbet.demos.held_out import chosen, contents, learned, split


def episodes_of(demos: Demonstrations) -> list[bytes]:
    cuts = zip(demos.episode_starts, demos.episode_ends, strict=True)
    return [demos.observation[start:end].tobytes() + demos.action[start:end].tobytes() for start, end in cuts]


def test_nothing_held_out_is_the_same_object() -> None:
    demos = synthetic(6)
    assert split(demos).train is demos
    assert learned(demos, {"views": []}).train is demos


def test_the_lowest_hashes_are_held_out_and_the_rest_is_learned_from() -> None:
    demos = synthetic(20)
    found = split(demos, 0.2)
    assert set(found.episodes) == set(np.argsort(contents(demos))[:4])
    rest = [part for number, part in enumerate(episodes_of(demos)) if number not in found.episodes]
    assert episodes_of(found.train) == rest
    assert found.train.columns["seed"].tolist() == [n for n in range(20) if n not in found.episodes]


def test_the_choice_does_not_depend_on_the_order_of_episodes() -> None:
    demos = synthetic(20)
    turned = chosen(demos, np.arange(20)[::-1])
    one = {episodes_of(demos)[number] for number in split(demos, 0.25).episodes}
    two = {episodes_of(turned)[number] for number in split(turned, 0.25).episodes}
    assert one == two


def test_copies_are_on_one_side() -> None:
    demos = synthetic(10)
    doubled = chosen(demos, np.array([*range(10), *range(10)]))
    held = split(doubled, 0.3)
    assert set(held.episodes % 10) | set(held.episodes) >= set(held.episodes % 10 + 10)
    assert not set(episodes_of(chosen(doubled, held.episodes))) & set(episodes_of(held.train))


def test_whole_sessions_are_held_out_besides() -> None:
    demos = synthetic(30)  # sessions of 10
    held = split(demos, 0.2, newest_sessions=1)
    assert held.sessions.tolist() == list(range(20, 30))
    assert len(held.episodes) == 4
    assert held.episodes.max() < 20
    assert set(held.train.columns["session"]) == {"session-0", "session-1"}


def test_one_session_must_be_left() -> None:
    with pytest.raises(ValidationError, match=r"held_out_sessions: 3 sessions cannot be held out: .* are of 3"):
        split(synthetic(30), newest_sessions=3)


def test_one_episode_must_be_left() -> None:
    with pytest.raises(ValidationError, match=r"held_out: 0\.9 of 2 episodes"):
        split(synthetic(2), 0.9)


def test_a_leaked_episode_is_named() -> None:
    """Planted: the newest session has a training episode again, and half of another one."""
    demos = synthetic(20)
    starts, ends = demos.episode_starts, demos.episode_ends
    half = int(demos.lengths[5]) // 2
    parts = [np.arange(len(demos.action)), np.arange(starts[3], ends[3]), np.arange(starts[5], starts[5] + half)]
    steps = np.concatenate(parts)
    leaked = replace(
        demos,
        observation=demos.observation[steps],
        action=demos.action[steps],
        time_s=demos.time_s[steps],
        episode_ends=np.cumsum([*demos.lengths, len(parts[1]), half]),
        columns={
            name: np.concatenate([column, column[[3, 5]] if name != "session" else np.array(["new", "new"])])
            for name, column in demos.columns.items()
        },
        state=None,
    )
    with pytest.raises(ValidationError) as caught:
        split(leaked, newest_sessions=1)
    assert "episode 20 is training episode 3, bit for bit" in str(caught.value)
    assert f"episode 21 is the beginning of training episode 5, bit for bit over {half} steps" in str(caught.value)


def test_pictures_of_chosen_episodes_are_read_where_they_are_asked_for() -> None:
    demos = synthetic(4)
    steps = len(demos.action)
    frames = np.arange(steps, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    part = chosen(replace(demos, cameras={"front": frames}), np.array([2, 0]))
    seen = part.cameras["front"]
    first = int(demos.episode_starts[2])
    assert seen.shape == (int(demos.lengths[2] + demos.lengths[0]), 2, 2, 3)
    assert seen[np.array([0, 1])][:, 0, 0, 0].tolist() == [first % 256, (first + 1) % 256]
