"""The objects behind data.dvc by their md5: the bytes in the default remote and in this clone's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from vqbet.contract import PipelineError

CHUNK_BYTES = 1 << 20


class Stores:
    """The default remote and the local cache of one repository, by object id. The remote is looked up when needed."""

    def __init__(self, repo: Any) -> None:
        self._repo, self._cache = repo, repo.cache.local

    @cached_property
    def _remote(self) -> Any:
        return self._repo.cloud.get_remote_odb()

    def path(self, oid: str) -> str:
        """Of the object in the remote."""
        return str(self._remote.oid_to_path(oid))

    def cached(self, oid: str) -> Path:
        """Of the object in the local cache, whether it is there or not."""
        return Path(self._cache.oid_to_path(oid))

    def size(self, oid: str) -> int:
        """Bytes in the remote. Raises FileNotFoundError."""
        return int(self._remote.fs.info(self.path(oid))["size"])

    def read(self, oid: str) -> bytes:
        """The remote's bytes. Raises FileNotFoundError."""
        with self._remote.fs.open(self.path(oid), "rb") as file:
            return bytes(file.read())

    def expected_size(self, oid: str, file: Path) -> int | None:
        """Bytes of the local cache's object, else of the file in data/; None where this clone has neither."""
        return next((place.stat().st_size for place in (self.cached(oid), file) if place.is_file()), None)


def md5(content: bytes) -> str:
    """As DVC names its objects."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@contextmanager
def opened(root: Path, failure: str) -> Iterator[Stores]:
    """The repository's stores. What DVC or the network say against it becomes a PipelineError: `failure`, and why."""
    from botocore.exceptions import BotoCoreError
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            yield Stores(repo)
    except (DvcException, BotoCoreError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise PipelineError(f"{root}: {failure}: {reason}; check `dvc remote list`") from error
