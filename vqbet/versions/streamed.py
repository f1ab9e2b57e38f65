"""Files of one store in the version of data/ that data.dvc names, each brought from the remote when it is needed.

Files stay in this clone's DVC cache, under the md5 by which DVC knows them, so that a later `dvc pull` brings only the
rest. Whoever reads them compares them with the store's own manifest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, final

from vqbet.contract import PipelineError
from vqbet.files import manifest
from vqbet.versions import data, objects
from vqbet.versions.objects import Stores

FAILURE = "files of data/ cannot be brought from the DVC remote"


@final
class Streamed:
    """Function from a file's path in the store ("manifest.json") to its path in DVC's cache.

    files: md5 of each file. Pickled, or after a fork, it opens the remote again.
    """

    def __init__(self, root: Path, files: Mapping[str, str]) -> None:
        self._root, self.files = root, files
        self._process = 0
        self._stores: Stores

    @classmethod
    def of(cls, root: Path, store: str) -> Self:
        """Return the files of data/<store>. Raises PipelineError where the version has none, or no remote answers."""
        version = data.read(root)
        with objects.opened(root, FAILURE) as stores:
            listed = json.loads(stores.fetch(version.md5, "the manifest of data/").read_bytes())
        files = {str(entry["relpath"]): str(entry["md5"]) for entry in listed}
        found = {name.removeprefix(f"{store}/"): md5 for name, md5 in files.items() if name.startswith(f"{store}/")}
        if not found:
            raise PipelineError(f"{root / 'data.dvc'}: version {version.md5[:12]} has no {store}; run `vqbet ingest`")
        for name in found:
            if manifest.NAME.fullmatch(name) is None:
                raise PipelineError(f"{root / 'data.dvc'}: lists {name!r}, which names no file; do not trust it")
        return cls(root, found)

    def __reduce__(self) -> tuple[Any, ...]:
        return Streamed, (self._root, self.files)

    def __call__(self, name: str) -> Path:
        """Return the path of a file, brought here if it is not. Raises PipelineError naming a missing or broken one."""
        with objects.refused(self._root, FAILURE):
            if self._process != os.getpid():
                self._process, self._stores = os.getpid(), objects.kept(self._root)
            return self._stores.fetch(self.files[name], name)
