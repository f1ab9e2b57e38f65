"""Prefect: when, where and who. No arithmetic; every step is a stage that also runs without Prefect.

The environment is set before prefect is imported anywhere, so that its home and its silence are the project's.
"""

from vqbet import environment

ROOT = environment.prepare()
