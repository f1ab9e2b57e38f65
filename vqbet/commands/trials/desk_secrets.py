"""Secrets and ports of a desk, kept beside the salt, so that page and robot find the desk again after a restart."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vqbet.commands.serve import TOKEN
from vqbet.commands.trials.serving import DESK_TOKEN
from vqbet.contract import GateError
from vqbet.files import canonical, reading

ROBOT_TOKEN = "VQBET_ROBOT_TOKEN"
NAME = "desk.json"
TEXTS = ("page", "robot", "desk", "server")
MEND = "remove it: the desk makes another one, and page and robot need the new secrets"


@dataclass(frozen=True, slots=True)
class DeskSecrets:
    """page: in the address of the operator's page. robot: of the robot at the desk. desk, server: of the desk and of
    the robot at the policy server. port: of a policy server that the desk starts, 0 before the first time."""

    page: str
    robot: str
    desk: str
    server: str
    port: int = 0

    @classmethod
    def read(cls, folder: Path, variables: Mapping[str, str]) -> DeskSecrets:
        """Return the secrets of a session, made where there are none; environment variables come first.

        Raises GateError where the file holds something else, or cannot be written.
        """
        path = folder / NAME
        if path.exists():
            expect_secret(path)
            with reading.sentences(str(path), GateError, MEND):
                said = reading.parse(reading.load(path, GateError, most=1 << 12), str(path), GateError)
                page, robot, desk, server = (str(said[name]) for name in TEXTS)
                found = cls(page, robot, desk, server, int(said["port"]))
        else:
            page, robot, desk, server = (secrets.token_urlsafe(18) for _ in TEXTS)
            found = cls(page, robot, desk, server)
            found.write(folder)
        return replace(
            found,
            robot=variables.get(ROBOT_TOKEN) or found.robot,
            desk=variables.get(DESK_TOKEN) or found.desk,
            server=variables.get(TOKEN) or found.server,
        )

    def write(self, folder: Path) -> None:
        """Keep the secrets, readable by this user only. Raises GateError."""
        path, next_one = folder / NAME, folder / f".{NAME}.next"
        try:
            with open(os.open(next_one, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
                file.write(canonical.document(asdict(self)))
            os.replace(next_one, path)
        except OSError as error:
            raise GateError(f"{path}: cannot be written: {error.strerror}") from error

    def variables(self) -> dict[str, str]:
        """Return the environment variables of processes that the desk starts."""
        return {ROBOT_TOKEN: self.robot, DESK_TOKEN: self.desk, TOKEN: self.server}


def expect_secret(path: Path) -> None:
    """Raise GateError unless a file is there that this user owns and nobody else can read."""
    try:
        found = path.lstat()
    except OSError as error:
        raise GateError(f"{path}: cannot be read: {error.strerror}; bring the original back") from error
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid != os.getuid():
        raise GateError(
            f"{path}: expected a plain file of this user, mode 0600, got mode {stat.S_IMODE(found.st_mode):04o}; "
            "whoever read it may know the policies: plan again, or chmod 600 it if nobody did"
        )
