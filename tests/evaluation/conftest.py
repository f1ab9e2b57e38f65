"""The small world, policy and records of the tests of evaluation."""

from tests.support.point import arm, asking, env, plan, seeker

__all__ = ["arm", "asking", "env", "plan", "seeker"]
