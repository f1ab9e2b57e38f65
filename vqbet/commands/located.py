"""A task's foreign demonstrations, wherever they lie: fetched if need be, and opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vqbet.contract import StoreError
from vqbet.demos import importers, sources
from vqbet.demos.importers.fetch import fetch
from vqbet.demos.sources.bags import Resampling
from vqbet.demos.sources.source import Source
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch


def fetched(root: Path, task: str, source: str, watch: Watch) -> tuple[Path, str]:
    """Return where the data of a path or URL lies, and the sha256 of the archive it came in; "" for a path.

    Raises StoreError as `importers.fetch.fetch`.
    """
    archive: list[str] = []
    with watch.bar(f"fetch {task}") as advance:
        folder = fetch(
            source,
            Paths(root, task).scratch("downloads"),
            max_bytes=importers.MAX_BYTES,
            progress=lambda done, total: advance(done, total, {}),
            hashed=archive.append,
        )
    return folder, "".join(archive)


@contextmanager
def opened(
    root: Path, task: str, path: str, format: str, watch: Watch, resampling: Resampling | None = None
) -> Iterator[Source]:
    """Open the demonstrations at a path, which begins at the project if it is relative, or at a URL.

    format: "" where the files shall tell. resampling: of the topics of a bag. Raises StoreError.
    """
    folder = fetched(root, task, path if "://" in path else str(root / Path(path).expanduser()), watch)[0]
    try:
        yield sources.opened(folder, format, resampling)
    except OSError as error:
        raise StoreError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from error
