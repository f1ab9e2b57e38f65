"""The small plan and records of the tests of stages."""

from tests.support.point import arm, plan

__all__ = ["arm", "plan"]
