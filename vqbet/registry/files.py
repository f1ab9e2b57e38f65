"""Files of a registered version: download, comparison with a bundle of the same digest, and restoration."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqbet.contract import RegistryError
from vqbet.files import atomic, manifest
from vqbet.files.manifest import Fingerprint
from vqbet.registry import connection

if TYPE_CHECKING:
    from vqbet.registry.models import Version

NOT_OURS = ("MLmodel", "registered_model_meta")  # files that MLflow adds to the bundle's


def download(version: Version, into: Path) -> Path:
    """Download the bundle's files into the new or empty folder `into` and return `into`.

    The caller verifies the digest. Raises RegistryError if files are missing in the registry's store; `into` is then
    left unchanged.
    """
    name = f"{version.name}/{version.version}"
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise RegistryError(f"{into}: expected a new or empty folder for {name}")
    with atomic.replacing(into, RegistryError) as staging:
        _fetch(version, staging)
        for extra in NOT_OURS:
            (staging / extra).unlink(missing_ok=True)
        if not any(staging.iterdir()):
            raise RegistryError(
                f"{name}: the registry has lost its files; `vqbet audit {version.name} --repair` puts back "
                "those of champions, `register` those of the bundle in artifacts/"
            )
    return into


def complete(version: Version, folder: Path) -> list[str]:
    """Restore the registry's files of `version` from its bundle in `folder`; return the names of restored files.

    The caller has verified that the bundle in `folder` has the version's digest. Missing and changed files are
    uploaded; files that the bundle does not have are removed. Raises RegistryError if the registry's files still differ
    afterwards.
    """
    wrong = differences(version, folder)
    if not wrong:
        return []
    name = f"{version.name}/{version.version}"
    with connection.refused(f"put back the files of {name}"):
        store = store_of(logged_model(version))
        for path in wrong:
            if (folder / path).is_file():
                store.log_artifact(str(folder / path))
            else:
                store.delete_artifacts(path)
    if left := differences(version, folder):
        raise RegistryError(f"{name}: {left[0]} was put back and reads back otherwise; look at the registry's store")
    return wrong


def differences(version: Version, folder: Path) -> list[str]:
    """Return the names of files that the registry lacks, has with other bytes, or that the bundle does not have."""
    with tempfile.TemporaryDirectory() as staging:
        _fetch(version, Path(staging))
        found = {name: value for name, value in _prints(Path(staging)).items() if name not in NOT_OURS}
    wanted = _prints(folder)
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def size(version: Version) -> int:
    """Return the bytes of the version's files, as the registry's store lists them."""
    name = f"{version.name}/{version.version}"
    with connection.refused(f"list the files of {name}"):
        store = store_of(logged_model(version))
        listed = store.list_artifacts()
        for folder in [one.path for one in listed if one.is_dir]:
            listed += store.list_artifacts(folder)
    return sum(one.file_size or 0 for one in listed)


def logged_model(version: Version) -> str:
    """Return the id of the MLflow logged model that holds the version's files."""
    client = connection.client()
    with connection.refused(f"read {version.name}/{version.version}"):
        source = client.get_model_version(version.name, str(version.version)).source
    return str(source).removeprefix("models:/")


def _fetch(version: Version, into: Path) -> None:
    """Download all files of the version that the registry has."""
    import mlflow.artifacts

    connection.client()
    with connection.refused(f"download {version.name}/{version.version}"):
        mlflow.artifacts.download_artifacts(
            f"models:/{version.name}/{version.version}",
            dst_path=str(into),
            tracking_uri=connection.uri(),
            registry_uri=connection.uri(),
        )


def _prints(folder: Path) -> dict[str, Fingerprint]:
    return manifest.taken(folder, RegistryError, "look at the registry's store")


def store_of(model_id: str) -> Any:
    """Return MLflow's store of a model's files at its present location; MLflow's clients cache earlier locations."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    location = connection.client().get_logged_model(model_id).artifact_location
    return get_artifact_repository(location, tracking_uri=connection.uri(), registry_uri=connection.uri())
