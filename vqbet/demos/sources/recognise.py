"""The format of demonstrations, told from the names and first bytes of their files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet.contract import StoreError
from vqbet.demos.sources import checked
from vqbet.demos.sources.source import Source

if TYPE_CHECKING:
    from vqbet.demos.sources.bags import Resampling

HDF5 = b"\x89HDF\r\n\x1a\n"
UNDERSTOOD = (
    "a LeRobot set (meta/info.json), a replay buffer of Diffusion Policy (.zgroup or zarr.json, or a zip of it), an "
    "HDF5 file of robomimic or Isaac Lab, a folder of .npz episodes, a ROS 2 bag (metadata.yaml, .mcap or .db3)"
)


def opened(path: Path, format: str = "", resampling: Resampling | None = None) -> Source:
    """Return the source at a path, which was looked at and not loaded.

    format: a name in FORMATS; empty: told from the files. resampling: of the topics of a bag. Raises StoreError where
    there is nothing at `path`, where no format or more than one fits, and where the set contradicts itself.
    """
    if format and format not in FORMATS:
        raise StoreError(f"{path}: format: expected {', '.join(FORMATS)}, got {format!r}")
    if not path.exists():
        raise StoreError(f"{path}: there is nothing; expected demonstrations: {UNDERSTOOD}")
    format = format or _format(path)
    return _bag(path, resampling) if format == "bag" else FORMATS[format](path)


def _lerobot(path: Path) -> Source:
    from vqbet.demos.sources.lerobot import LeRobot

    return LeRobot(path)


def _replay_buffer(path: Path) -> Source:
    from vqbet.demos.sources.replay_buffer import ReplayBuffer

    return ReplayBuffer(path)


def _hdf5(path: Path) -> Source:
    from vqbet.demos.sources.hdf5 import Hdf5

    return Hdf5(path)


def _npz(path: Path) -> Source:
    from vqbet.demos.sources.npz import Npz

    return Npz(path)


def _bag(path: Path, resampling: Resampling | None = None) -> Source:
    from vqbet.demos.sources.bags import Bags

    return Bags(path, resampling)


FORMATS: Mapping[str, Callable[[Path], Source]] = {
    "lerobot": _lerobot,
    "replay_buffer": _replay_buffer,
    "hdf5": _hdf5,
    "npz": _npz,
    "bag": _bag,
}


def _format(path: Path) -> str:
    found = readings(path)
    if len(found) == 1:
        return next(iter(found))
    if found:
        told = "; ".join(f"{name} ({why})" for name, why in found.items())
        raise StoreError(f"{path}: expected one format, but there are {len(found)} readings: {told}; name the format")
    if path.is_file():
        raise StoreError(f"{path}: holds no demonstrations that are understood: {UNDERSTOOD}")
    deeper = [f"{child.name} ({name})" for child in _folders(path) for name in readings(child)]
    advice = f"; name one of {', '.join(deeper)}" if deeper else ""
    raise StoreError(
        f"{path}: holds no demonstrations that are understood (found: {checked.listing(path)}){advice}; "
        f"expected {UNDERSTOOD}"
    )


def readings(path: Path) -> dict[str, str]:
    """Return the formats as which a file or folder can be read, with the reason of each."""
    if path.is_file():
        return _of_a_file(path)
    found: dict[str, str] = {}
    if (path / "meta" / "info.json").is_file():
        found["lerobot"] = "meta/info.json"
    for name in (".zgroup", "zarr.json"):
        if (path / name).is_file():
            found["replay_buffer"] = name
    names = [child.name for child in path.iterdir() if child.is_file()]
    if "metadata.yaml" in names or any(name.endswith((".mcap", ".db3")) for name in names):
        found["bag"] = next(name for name in names if name == "metadata.yaml" or name.endswith((".mcap", ".db3")))
    elif any((child / "metadata.yaml").is_file() for child in _folders(path)):
        found["bag"] = "*/metadata.yaml"
    for format, endings in (("npz", (".npz",)), ("hdf5", (".hdf5", ".h5"))):
        fitting = sorted(name for name in names if name.endswith(endings))
        if fitting:
            found[format] = fitting[0]
    return found


def _of_a_file(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(HDF5):
        return {"hdf5": "its first bytes"}
    if head.startswith(b"\x89MCAP") or (head.startswith(b"SQLite format 3") and path.suffix == ".db3"):
        return {"bag": "its first bytes"}
    return {"replay_buffer": "a zip"} if zipfile.is_zipfile(path) else {}


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))[:100]
