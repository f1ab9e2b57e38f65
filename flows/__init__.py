"""Prefect flows: scheduling only. Every step is a stage or a command that also runs without Prefect.

The environment is set before prefect is imported, so that the project's home and telemetry settings apply to it.
Prefect may not start its own server, which would be open to every web page: see `flows.server`.
"""

import os

from vqbet import environment

ROOT = environment.prepare()
os.environ["PREFECT_SERVER_EPHEMERAL_ENABLED"] = "false"
