"""Folder of a team: $VQBET_TEAM, else team/ in the project. Only this user may read what is in it."""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vqbet.contract import TeamError

VARIABLE = "VQBET_TEAM"
DATABASE_USERS = ("postgres", "nobody")  # in this order: Postgres refuses to run as root


@dataclass(frozen=True, slots=True)
class Place:
    """Paths of a team's files.

    settings.json and environment hold credentials and have mode 0600. Every part has a subfolder with its files, its
    log and the number of its process.
    """

    folder: Path
    root: Path  # of the project

    @classmethod
    def of(cls, root: Path) -> Place:
        """Return the team's folder of the project at `root`."""
        named = os.environ.get(VARIABLE, "")
        return cls(Path(named).expanduser().absolute() if named else root / "team", root)

    @property
    def settings(self) -> Path:
        return self.folder / "settings.json"

    @property
    def environment(self) -> Path:
        """The file that a shell sources."""
        return self.folder / "environment"

    def part(self, name: str) -> Path:
        return self.folder / name

    def log(self, name: str) -> Path:
        return self.folder / name / "log"

    def made(self) -> bool:
        """Return whether `up` has been here."""
        return self.settings.is_file()

    def make(self) -> None:
        """Create the folder for this user alone. Raises TeamError if it is another user's, or cannot be reached."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = self.folder.stat()
            if status.st_uid != os.geteuid():
                raise TeamError(f"{self.folder}: belongs to another user; set {VARIABLE} to a folder of your own")
            self.folder.chmod(0o711 if database_user() else 0o700)
        except OSError as error:
            raise TeamError(
                f"{self.folder}: cannot be made: {error.strerror}; set {VARIABLE} to another one"
            ) from error
        if database_user():
            self._reachable()

    def _reachable(self) -> None:
        """Check that the user who runs Postgres in place of root can pass every folder above the team's."""
        for folder in self.folder.resolve().parents:
            if not folder.stat().st_mode & stat.S_IXOTH:
                raise TeamError(
                    f"{folder}: mode {stat.S_IMODE(folder.stat().st_mode):04o}; Postgres refuses to run as root, and "
                    f"the user {database_user()} cannot pass this folder; set {VARIABLE} to a folder elsewhere, or use "
                    "another account"
                )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the team's lock. Raises TeamError if another `up` or `down` is running."""
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise TeamError(f"{self.folder}: another `vqbet team` is at work here; wait for it to end") from error
        finally:
            os.close(handle)


def database_user() -> str:
    """Return the user that runs Postgres where this process is root's; "" where it runs as this user."""
    if os.geteuid() != 0:
        return ""
    return next((name for name in DATABASE_USERS if _known(name)), DATABASE_USERS[-1])


def _known(name: str) -> bool:
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False
