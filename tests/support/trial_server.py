"""A server of blind trials in a thread of the test, with two small policies for the point of tests/support/point.py.

    with trial_server(plan.sha256, plan.arms.values(), robot=plan.robot, key=server_key(tmp_path)) as server:
        TrialLine(server.url, DESK_TOKEN)

The first digest is that of a policy that always arrives, the second that of one that arrives from near by only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.homing import Homing
from tests.support.point import POINT
from tests.support.serving import Running, running
from vqbet.policies.actor import Actor
from vqbet.serving.blind_arms import BlindArms
from vqbet.serving.desk_line import DeskLine
from vqbet.serving.seats import Served
from vqbet.serving.server import ServerOptions
from vqbet.signing import keys
from vqbet.signing.keys import Key

GOOD, POOR = "c" * 64, "d" * 64  # candidate and champion of tests.support.point.planned
SPEEDS = (0.08, 0.015)  # m per step
DESK_TOKEN = "desk-secret"
SERVER_TOKEN = ""  # of the robots at the policy server, in VQBET_TOKEN; none on loopback
ROBOT = "arm-3"
PLAN = "e" * 64


def server_key(folder: Path) -> Key:
    """Return the key of a server, kept in a folder for the next start."""
    path = folder / "server-key.pem"
    return keys.read(path) if path.exists() else keys.make(path)


def served_arms(digests: Iterable[str] = (GOOD, POOR)) -> list[Served]:
    pairs = zip(digests, SPEEDS, strict=False)  # a candidate alone has one digest
    return [
        Served.of(Actor(POINT, Homing(speed), execute="first"), digest, f"point/{number}")
        for number, (digest, speed) in enumerate(pairs)
    ]


@contextmanager
def trial_server(
    plan: str,
    digests: Iterable[str] = (GOOD, POOR),
    *,
    key: Key,
    robot: str = ROBOT,
    desk_token: str = DESK_TOKEN,
    server_token: str = SERVER_TOKEN,
    port: int = 0,
) -> Iterator[Running]:
    """Serve the arms of a plan, blind; yields what has `url`, `port` and `end`. port: that of a server that was ended,
    to start it again."""
    arms = BlindArms(served_arms(digests), plan=plan, robot=robot, key=key)
    options = ServerOptions(grace_s=0.2, token=server_token)
    with running(DeskLine(arms, desk_token, robots=server_token), options, port=port) as found:
        yield found
