"""Prefect: when, where and who. No arithmetic; every step is a stage that also runs without Prefect.

The environment is set before prefect is imported anywhere, so that its home and its silence are the project's. Nor does
Prefect start a server by itself, which would be open to every web page: see `flows.server`.
"""

import os

from vqbet import environment

ROOT = environment.prepare()
os.environ["PREFECT_SERVER_EPHEMERAL_ENABLED"] = "false"
