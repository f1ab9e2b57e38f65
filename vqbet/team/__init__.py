"""Team mode on one machine, from packages alone: Postgres, S3 server, Prefect server, MLflow server and two workers.

Every part is a process of its own that listens on loopback, needs a credential, and keeps files and log below one
folder. There is no supervisor: `up` starts what is not running, `status` says what is, `down` ends all of it.
"""

from vqbet.team.entry import remote_variables, source_command, write_variables
from vqbet.team.parts import CPU, GPU
from vqbet.team.place import Place
from vqbet.team.servers import PartStatus, down, status, up

__all__ = [
    "CPU",
    "GPU",
    "PartStatus",
    "Place",
    "down",
    "remote_variables",
    "source_command",
    "status",
    "up",
    "write_variables",
]
