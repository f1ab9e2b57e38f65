"""The objects of data.dvc by md5, in the default remote and in this clone's cache."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from vqbet.contract import PipelineError
from vqbet.versions import patience, refusals

CHUNK_BYTES = 1 << 20


class Stores:
    """The default remote and the local cache of a repository, by object id. The remote is opened on first use."""

    def __init__(self, repo: Any) -> None:
        self._repo, self._cache = repo, repo.cache.local

    @cached_property
    def _remote(self) -> Any:
        name = self._repo.config["core"].get("remote", "")
        if not self._repo.config["remote"].get(name, {}).get("url", "").startswith("s3://"):
            return self._repo.cloud.get_remote_odb()
        patience.extend()
        remote = self._repo.cloud.get_remote_odb()
        _present(remote)
        return remote

    @property
    def address(self) -> str:
        """Address of the default remote, which answers: s3://<bucket>/<prefix>, or a path. Raises as `opened`."""
        return _address(self._remote)

    def path(self, oid: str) -> str:
        """Return the path of an object in the remote."""
        return str(self._remote.oid_to_path(oid))

    def cached(self, oid: str) -> Path:
        """Return the path of an object in the local cache, which may not exist."""
        return Path(self._cache.oid_to_path(oid))

    def size(self, oid: str) -> int:
        """Return the size in bytes of an object in the remote. Raises FileNotFoundError."""
        return int(self._remote.fs.info(self.path(oid))["size"])

    def read(self, oid: str) -> bytes:
        """Return the content of an object in the remote. Raises FileNotFoundError."""
        with self._remote.fs.open(self.path(oid), "rb") as file:
            return bytes(file.read())

    def fetch(self, oid: str, file: str) -> Path:
        """Return the path of an object in the local cache, copied from the remote where the cache lacks it.

        file: its name, for messages. A copy is in the cache only when it is whole and has its md5. Raises PipelineError
        where the remote lacks it, or has other bytes.
        """
        place = self.cached(oid)
        if place.is_file():
            return place
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = place.with_name(f".{secrets.token_hex(8)}.tmp")  # DVC's own name for what is being written
        try:
            self._remote.fs.get_file(self.path(oid), str(staging))
            with staging.open("rb") as content:
                found = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if found != oid.removesuffix(".dir"):
                raise PipelineError(
                    f"{self.path(oid)} ({file}): damaged in the remote; delete it there and push it again"
                )
            staging.chmod(0o444)
            staging.replace(place)
        except FileNotFoundError as error:
            raise PipelineError(
                f"{self.path(oid)} ({file}): missing in the remote; push it where it is: dvc push"
            ) from error
        finally:
            staging.unlink(missing_ok=True)
        return place

    def expected_size(self, oid: str, file: Path) -> int | None:
        """Return the size in bytes of the cached object, else of `file` in data/; None if this clone has neither."""
        return next((place.stat().st_size for place in (self.cached(oid), file) if place.is_file()), None)


def md5(content: bytes) -> str:
    """Return the md5 by which DVC names an object."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _address(remote: Any) -> str:
    path = str(remote.path).removesuffix("/files/md5")
    return f"s3://{path}" if remote.fs.protocol == "s3" else path


def _present(remote: Any) -> None:
    """Raise PipelineError unless the bucket may be listed: DVC calls objects of a missing bucket missing objects."""
    from botocore.exceptions import BotoCoreError

    bucket, _, prefix = str(remote.path).partition("/")
    try:
        remote.fs.fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except (OSError, BotoCoreError) as error:
        raise PipelineError(f"{_address(remote)}: DVC's remote: {refusals.cause(error) or error}") from error


@contextmanager
def opened(root: Path, failure: str) -> Iterator[Stores]:
    """Open the repository's stores for a block, inside `refused`."""
    from dvc.repo import Repo

    with refused(root, failure), Repo(str(root)) as repo:
        yield Stores(repo)


def kept(root: Path) -> Stores:
    """Return the repository's stores, open until the process ends. To be used inside `refused`."""
    from dvc.repo import Repo

    return Stores(Repo(str(root)))


@contextmanager
def refused(root: Path, failure: str) -> Iterator[None]:
    """Convert errors of DVC and the network to PipelineError with the text `failure`."""
    from botocore.exceptions import BotoCoreError
    from dvc.exceptions import DvcException

    try:
        yield
    except (DvcException, BotoCoreError, OSError, ValueError) as error:
        reason = refusals.cause(error) or " ".join(str(error).split())
        raise PipelineError(f"{root}: {failure}: {reason}; check `dvc remote list`") from error
