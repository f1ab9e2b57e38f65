"""What is asked of a world that does not look the same is refused by the parameter; what is asked of one is done."""

from __future__ import annotations

import numpy as np
import pytest
from recorded import recorded

from vqbet.contract import ConfigError
from vqbet.demos import frames, symmetry
from vqbet.sims.pusht import PushT
from vqbet.testing import synthetic


@pytest.mark.parametrize(("mirrored", "goal_frame"), [(False, False), (True, False), (False, True), (True, True)])
def test_what_is_asked_for_is_done_and_nothing_else(mirrored: bool, goal_frame: bool) -> None:
    env = PushT()
    demos = recorded(env, env.reset(np.arange(4)), lambda seen: seen[:, :2].clip(0, 512), 6)
    found = symmetry.seen(demos, "prior", mirrored=mirrored, goal_frame=goal_frame)
    assert len(found.episode_ends) == (8 if mirrored else 4)
    ends = found.observation[found.episode_ends - 1][:, :18]
    assert np.allclose(ends, frames.AT["pusht"], atol=0.01) == goal_frame
    assert (found is demos) == (not mirrored and not goal_frame)


@pytest.mark.parametrize(("parameter", "how"), [("mirrored", "in a mirror"), ("goal_frame", "moved and turned")])
def test_a_world_that_looks_otherwise_is_refused_by_the_parameter(parameter: str, how: str) -> None:
    asked = {"mirrored": False, "goal_frame": False} | {parameter: True}
    message = rf"synthetic\.prior\.{parameter}: true: the world of 'synthetic' does not look the same {how}; .*pusht"
    with pytest.raises(ConfigError, match=message):
        symmetry.seen(synthetic(2), "prior", **asked)
