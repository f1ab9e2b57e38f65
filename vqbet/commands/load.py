"""Loading of a policy by name or by folder, ready to act: `vqbet.load`."""

from __future__ import annotations

import os
import re
import tempfile
from os import PathLike
from pathlib import Path

from vqbet import bundle
from vqbet.contract import BundleError
from vqbet.files import reading
from vqbet.policies import exported
from vqbet.serving.session import Session

REFERENCE = re.compile(r"[a-z][a-z0-9_]{0,39}(@[a-z]+|/[0-9]+)", re.ASCII)


def load(policy: str | PathLike[str], *, digest: str | None = None) -> Session:
    """Return a session of a registered policy, or of the bundle or exported policy in a folder. Every byte is checked.

    policy: "<task>@champion", "<task>@candidate" or "<task>/<version>", looked up in the registry of the project
    around the working directory; anything else is a folder. Pass a Path for a folder whose name looks like a reference.
    digest: expected digest of the bundle.

    An episode with seed 0 has begun, so that `act` may follow at once; a policy that takes a goal needs a call of
    `start` with the goal first. Raises RegistryError where there is no such version, BundleError where the bundle does
    not match its manifest or `digest`.
    """
    session = _registered(policy, digest) if is_reference(policy) else _in_folder(Path(policy), digest)
    if not session.goal:
        session.start(0)
    return session


def is_reference(policy: str | PathLike[str]) -> bool:
    """Return True for the name of a registered policy: "<task>@<alias>" or "<task>/<version>"."""
    return isinstance(policy, str) and REFERENCE.fullmatch(policy) is not None


def _registered(reference: str | PathLike[str], digest: str | None) -> Session:
    from vqbet import environment, registry  # imported late: a folder needs neither MLflow nor a project

    environment.prepare()
    registry.check()
    version = registry.resolve(str(reference))
    with tempfile.TemporaryDirectory() as folder:
        return Session(registry.download(version, Path(folder) / "bundle"), digest or version.digest)


def check_folder(folder: Path) -> None:
    """Raise BundleError where the folder claims to be neither a bundle nor an exported policy."""
    manifests = (bundle.MANIFEST, exported.MANIFEST)
    if not any(os.path.isfile(folder / name) for name in manifests):  # False, no error, for an impossible file name
        raise BundleError(
            f"{reading.short(str(folder))}: no folder that holds {' or '.join(manifests)}; expected one, or a "
            "registered policy such as blockpush@champion, blockpush@candidate or blockpush/3"
        )


def _in_folder(folder: Path, digest: str | None) -> Session:
    check_folder(folder)
    return Session(folder, digest)
