"""Registered models: a bundle's files, an MLmodel file with our own flavour, and tags. No pickle, nothing executable.

By design `mlflow.pyfunc` cannot load them: policies are loaded by `vqbet.bundle` from verified files.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqbet.contract import RegistryError, Spec
from vqbet.files import reading
from vqbet.registry import connection, files
from vqbet.registry.runs import experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
CANDIDATE = "candidate"
FLAVOR = "vqbet"

# name -> (dtype, shape); -1 is the batch axis
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a model, as MLflow shows them."""

    inputs: Tensors
    outputs: Tensors

    @classmethod
    def of_policy(cls, spec: Spec) -> Signature:
        """Return the signature observation (-1, D) float32 -> action (-1, A) float32, in physical units."""
        return cls(
            {"observation": ("float32", (-1, len(spec.observation)))}, {"action": ("float32", (-1, len(spec.action)))}
        )


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a registered model."""

    name: str
    version: int
    digest: str  # of the bundle
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    run_id: str = ""
    created: str = ""  # UTC, ISO 8601


def register(
    name: str,
    folder: Path,
    *,
    tags: Mapping[str, str],
    spec: Spec,
    run_id: str | None = None,
    signature: Signature | None = None,
) -> int:
    """Register the bundle in `folder` under `name` and return its version number.

    tags["digest"] identifies the bundle. If `name` already has a version with this digest, its tags are updated, files
    that the registry has lost are restored, and its number is returned. signature: by default that of a policy of
    `spec`. Raises RegistryError if there is no bundle or no digest, or if the registry refuses it.
    """
    if not tags.get("digest"):
        raise RegistryError(f"{name}: expected the bundle's digest among the tags, got {sorted(tags)}")
    if not folder.is_dir():
        raise RegistryError(f"{folder}: expected the folder of a bundle to register as {name}; run its stage first")
    client, signature = connection.client(), signature or Signature.of_policy(spec)
    with connection.locked(name):
        versions = _versions(client, name)
        for version in versions:
            if version.digest == tags["digest"]:
                _retag(client, version, tags)
                if files.complete(version, folder):
                    with connection.refused(f"describe {name}/{version.version}"):
                        _describe(files.logged_model(version), version.digest, version.run_id, signature)
                return version.version
        model_id = _upload(client, name, folder, tags["digest"], spec, run_id, signature)
        with connection.refused(f"register {name}"):
            if not versions:
                _create(client, name)
            made = client.create_model_version(
                name, source=f"models:/{model_id}", run_id=run_id, tags=dict(tags), model_id=model_id
            )
        return int(made.version)


def resolve(reference: str) -> Version:
    """Return the version for "name@alias" or "name/3". Raises RegistryError listing the existing versions."""
    match = re.fullmatch(r"([^@/\s]{1,100})(?:@([^@/\s]{1,100})|/([0-9]{1,9}))", reference)
    if match is None:
        raise RegistryError(
            f"{reading.short(reference)}: expected <model>@<alias> or <model>/<version>, such as blockpush@champion"
        )
    name, alias, number = match.groups()
    client = connection.client()
    found = by_alias(name, alias) if alias else None
    if number:
        found = next((version for version in _versions(client, name) if version.version == int(number)), None)
    if found is not None:
        return found
    raise RegistryError(f"{reference}: no such version in {connection.shown()}; there is: {_listing(client, name)}")


def by_digest(name: str, digest: str) -> Version:
    """Return the version whose bundle has this digest. Raises RegistryError if there is none."""
    found = next((version for version in _versions(connection.client(), name) if version.digest == digest), None)
    if found is None:
        raise RegistryError(
            f"{name}: no version has the digest {digest[:12]} in {connection.shown()}; register it again"
        )
    return found


def champion(task: str) -> Version | None:
    """Return the version that the champion alias names, or None; `promotion.champion` also checks the ledger."""
    return by_alias(task, CHAMPION)


def by_alias(name: str, alias: str) -> Version | None:
    """Return the version that has `alias` now, or None. Looks the alias up directly: searches do not show aliases."""
    from mlflow.exceptions import MlflowException

    client = connection.client()
    with connection.refused(f"read {name}@{alias}"):
        try:
            return _version(client.get_model_version_by_alias(name, alias), _aliases(client, name))
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no model; no alias
                return None
            raise


def set_candidate(name: str, version: int) -> None:
    """Point the alias `candidate` at `version`. No verdict is needed: the alias permits nothing."""
    client = connection.client()
    resolve(f"{name}/{version}")
    with connection.refused(f"set {name}@{CANDIDATE}"):
        client.set_registered_model_alias(name, CANDIDATE, str(version))


def model_tags(name: str) -> dict[str, str]:
    """Return the tags of the registered model itself (not of a version); empty if there is no such model."""
    model = _model(connection.client(), name)
    return dict(model.tags) if model else {}


def tag_model(name: str, key: str, value: str) -> None:
    """Set a tag of the registered model itself. Raises RegistryError if there is no such model."""
    with connection.refused(f"tag {name}"):
        connection.client().set_registered_model_tag(name, key, value)


def _upload(
    client: MlflowClient, name: str, folder: Path, digest: str, spec: Spec, run_id: str | None, signature: Signature
) -> str:
    """Upload the bundle's files and an MLmodel file as a logged model and return its id."""
    number = experiment(client, spec.task)
    with connection.refused(f"upload {folder}"):
        entity = client.create_logged_model(number, name=name, source_run_id=run_id, tags={"digest": digest})
        files.store_of(entity.model_id).log_artifacts(str(folder))
        _describe(entity.model_id, digest, run_id or "", signature)
        client.finalize_logged_model(entity.model_id, "READY")
        return str(entity.model_id)


def _describe(model_id: str, digest: str, run_id: str, signature: Signature) -> None:
    """Upload the MLmodel file: flavour and signature, nothing executable."""
    from mlflow.models import Model

    described = Model(run_id=run_id or None, model_uuid=model_id, model_id=model_id, signature=_tensor_specs(signature))
    described.add_flavor(FLAVOR, digest=digest)
    with tempfile.TemporaryDirectory() as staging:
        described.save(str(Path(staging) / "MLmodel"))
        files.store_of(model_id).log_artifacts(staging)


def _tensor_specs(signature: Signature) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def schema(tensors: Tensors) -> Schema:
        return Schema([TensorSpec(np.dtype(dtype), shape, name) for name, (dtype, shape) in tensors.items()])

    return ModelSignature(inputs=schema(signature.inputs), outputs=schema(signature.outputs))


def _create(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _retag(client: MlflowClient, version: Version, tags: Mapping[str, str]) -> None:
    with connection.refused(f"tag {version.name}/{version.version}"):
        for key, value in tags.items():
            if version.tags.get(key) != value:
                client.set_model_version_tag(version.name, str(version.version), key, value)


def _model(client: MlflowClient, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    with connection.refused(f"read {name}"):
        try:
            return client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise


def _aliases(client: MlflowClient, name: str) -> dict[str, int]:
    model = _model(client, name)
    return {alias: int(version) for alias, version in model.aliases.items()} if model else {}


def _versions(client: MlflowClient, name: str) -> list[Version]:
    """Return all versions of `name`, newest first."""
    aliases = _aliases(client, name)
    found: list[Version] = []
    with connection.refused(f"list versions of {name}"):
        page = None
        while page != "":
            answer = client.search_model_versions(f"name = '{_quoted(name)}'", max_results=1000, page_token=page)
            found += [_version(entity, aliases) for entity in answer]
            page = answer.token or ""
    return sorted(found, key=lambda version: -version.version)


def _quoted(name: str) -> str:
    if "'" in name:
        raise RegistryError(f"{name!r}: a model's name has no quotes; use the name of a task")
    return name


def _version(entity: Any, aliases: Mapping[str, int]) -> Version:
    number = int(entity.version)  # int from SQLite, str from a server
    return Version(
        name=entity.name,
        version=number,
        digest=entity.tags.get("digest", ""),
        tags=dict(entity.tags),
        aliases=tuple(sorted(alias for alias, owner in aliases.items() if owner == number)),
        run_id=entity.run_id or "",
        created=datetime.fromtimestamp(entity.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
    )


def _listing(client: MlflowClient, name: str) -> str:
    versions = _versions(client, name)
    if versions:
        return ", ".join(f"{name}/{item.version}" + "".join(f" (@{a})" for a in item.aliases) for item in versions[:20])
    with connection.refused("list models"):
        names = sorted(model.name for model in client.search_registered_models(max_results=100))
    return "models " + ", ".join(names) if names else "no model at all; run the pipeline once"
