"""Features of pictures on disk: what a frozen encoder makes of every picture that a prior is trained on.

A folder with one `<camera>.npy` (M, F) float32 for each camera, and `features.json`: the size and sha256 of each, and
`of`, which names the encoder and the demonstrations. A folder without an encoder says so and holds nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vqbet.contract import StoreError
from vqbet.files import atomic, canonical, manifest, reading

MANIFEST = "features.json"
SUFFIX = ".npy"
SCHEMA_VERSION = 1
DTYPE = np.dtype("<f4")
MOST_BYTES = 2**20  # of the manifest
Features = Float[np.ndarray, "M F"]


def write(
    folder: Path,
    of: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, int]],
    fill: Callable[[Mapping[str, Features]], None],
) -> None:
    """Write the features of each camera, replacing those in `folder` in one step.

    of: facts that `read` compares; JSON-clean. shapes: (M, F) of each camera. fill: writes the features into arrays by
    camera, which are mapped to the files, so that they need not fit into memory. Raises StoreError for errors of the
    disk.
    """
    with atomic.replacing(folder, StoreError) as staging:
        paths = {name: staging / f"{name}{SUFFIX}" for name in shapes}
        fill({name: np.lib.format.open_memmap(paths[name], "w+", DTYPE, shape) for name, shape in shapes.items()})
        for path in paths.values():
            atomic.sync(path)
        files = {path.name: _fingerprint(path) for path in paths.values()}
        content = {"schema": SCHEMA_VERSION, "of": dict(of), "files": manifest.to_json(files)}
        atomic.create(staging / MANIFEST, canonical.document(content))


def read(folder: Path, of: Mapping[str, Any], cameras: Mapping[str, int], mend: str) -> dict[str, Features]:
    """Return the features of each camera, mapped from its file and read where they are asked for.

    of: as given to `write`. cameras: by name, the number of pictures. mend: advice at the end of a message. Raises
    StoreError where the features are missing, of another encoder or other demonstrations, or damaged.
    """
    where = folder / MANIFEST
    content = reading.parse(reading.load(where, StoreError, most=MOST_BYTES), f"{where}", StoreError)
    with reading.sentences(f"{where}", StoreError, mend):
        files = manifest.from_json(content["files"])
        found = {key: content["of"].get(key) for key in of}
    for key, wanted in of.items():
        if found[key] != wanted:
            raise StoreError(
                f"{folder}: features are of {key} {reading.short(found[key])}, and training is with "
                f"{reading.short(wanted)}; {mend}"
            )
    return {name: _array(folder / f"{name}{SUFFIX}", files, count, mend) for name, count in cameras.items()}


def _array(path: Path, files: manifest.Files, count: int, mend: str) -> Features:
    try:
        if _fingerprint(path) != files.get(path.name):
            raise StoreError(f"{path}: was changed or is damaged: its sha256 is not the one in {MANIFEST}; {mend}")
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as features: {error}; {mend}") from error
    if array.ndim != 2 or array.dtype != DTYPE or len(array) != count:
        found = f"{array.dtype} {array.shape}"
        raise StoreError(f"{path}: expected float32 features of {count} pictures, got {found}; {mend}")
    return np.asarray(array)


def _fingerprint(path: Path) -> manifest.Fingerprint:
    return manifest.Fingerprint(path.stat().st_size, manifest.sha256(path))
