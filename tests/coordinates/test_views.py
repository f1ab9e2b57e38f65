"""What is asked of a world that is not made for it is refused by the parameter; what is asked of one is done."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest

from tests.support.recorded import recorded
from tests.support.synthetic import synthetic
from vqbet.contract import Camera, ConfigError
from vqbet.coordinates import views
from vqbet.tasks import Task
from vqbet.tasks.pusht import TASK
from vqbet.tasks.pusht.world import PushT


@pytest.mark.parametrize("wanted", [(), ("mirrored",), ("goal_frame",), ("mirrored", "goal_frame")])
def test_what_is_asked_for_is_done_and_nothing_else(wanted: Collection[str]) -> None:
    env = PushT()
    demos = recorded(env, env.reset(np.arange(4)), lambda seen: seen[:, :2].clip(0, 512), 6)
    found = views.seen(demos, wanted, TASK)
    assert len(found.episode_ends) == (8 if "mirrored" in wanted else 4)
    ends = found.observation[found.episode_ends - 1][:, :18]
    assert np.allclose(ends, TASK.goal_frame, atol=0.01) == ("goal_frame" in wanted)
    assert (found is demos) == (not wanted)


def test_what_was_made_before_names_views_by_flags() -> None:
    flags = {"mirrored": True, "goal_frame": False, "absolute": True, "seed": 1}
    assert views.flagged(flags) == {"mirrored", "absolute"}
    assert views.flagged({}) == frozenset()


@pytest.mark.parametrize(
    ("view", "why"),
    [
        ("mirrored", "does not look the same in a mirror"),
        ("goal_frame", "does not look the same moved and turned"),
        ("absolute", "has no commands that count from what is observed"),
    ],
)
def test_a_world_that_is_not_made_for_it_is_refused_by_the_parameter(view: str, why: str) -> None:
    demos = synthetic(2)
    with pytest.raises(ConfigError, match=rf"synthetic\.demos\.views: {view}: the world of 'synthetic' {why}; take"):
        views.seen(demos, {view}, Task(spec=demos.spec))


@pytest.mark.parametrize("view", ["mirrored", "goal_frame"])
def test_a_view_of_numbers_alone_is_refused_where_there_are_pictures(view: str) -> None:
    env = PushT()
    demos = recorded(env, env.reset(np.arange(2)), lambda seen: seen[:, :2].clip(0, 512), 6)
    pictures = np.zeros((len(demos.action), 8, 8, 3), np.uint8)
    seeing = replace(demos, spec=replace(demos.spec, cameras=(Camera("top", 8, 8),)), cameras={"top": pictures})
    with pytest.raises(ConfigError, match=rf"the view '{view}' is of numbers alone.*'top'; take '{view}' from demos"):
        views.seen(seeing, (view,), TASK)
