"""Statistics in the metadata of a LeRobot set, compared with its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vqbet.contract import StoreError
from vqbet.demos.sources import checked, lerobot_meta, parquet
from vqbet.demos.sources.lerobot_meta import NUMBERS, Entry, Info

EXACT = 1e-5  # of the largest number: float32 to float64, and back through JSON
MEAN = 1e-3  # of the range: means that were summed in float32
LAG = 0.5  # of a step, between a timestamp and its place by fps
RATE = 0.01  # share by which fps may differ from the rate of the timestamps


def of_the_rows(
    columns: Mapping[str, np.ndarray], time_s: np.ndarray, episode: int, entry: Entry, told: Info, where: str
) -> None:
    """Raise StoreError where the bookkeeping columns of an episode do not count its steps, or timestamps leave fps."""
    counted = np.arange(entry.steps)
    expected = {
        "frame_index": counted,
        "episode_index": np.full(entry.steps, episode),
        "index": entry.first + counted,
    }
    for name, wanted in expected.items():
        wrong = np.flatnonzero(columns[name] != wanted)
        if len(wrong):
            step = int(wrong[0])
            raise StoreError(f"{where}: {name}: expected {wanted[step]} at step {step}, got {columns[name][step]}")
    checked.steady(time_s, f"{where}: timestamp")
    if entry.steps > 1:
        measured = (entry.steps - 1) / (time_s[-1] - time_s[0])
        middle = 1 / float(np.median(np.diff(time_s)))
        if min(abs(measured / told.fps - 1), abs(middle / told.fps - 1)) > RATE:
            raise StoreError(
                f"{told.path}: fps: says {told.fps:g}, but timestamps of episode {episode} in {entry.data} "
                f"make {middle:.4g}"
            )
    late = np.flatnonzero(np.abs(time_s * told.fps - counted) > LAG)
    if len(late):
        step = int(late[0])
        raise StoreError(
            f"{where}: timestamp: expected {step / told.fps:.4f} s at step {step} by fps {told.fps:g}, got "
            f"{time_s[step]:.4f} s, {abs(time_s[step] * told.fps - step):.1f} steps off"
        )


def of_the_values(values: np.ndarray, claims: Mapping[str, np.ndarray], where: str, source: str) -> None:
    """Raise StoreError where min, max, mean or count of an episode's numbers are not what the set says.

    values: (N, ...). source: the place of the claims. Numbers that are not finite are left to validation.
    """
    flat = values.reshape(len(values), -1).astype(np.float64)
    if not claims or not np.isfinite(flat).all():
        return
    low, high = flat.min(axis=0), flat.max(axis=0)
    slack = EXACT * np.maximum(np.abs(low), np.abs(high)) + 1e-8
    for kind, got, within in (
        ("min", low, slack),
        ("max", high, slack),
        ("mean", flat.mean(axis=0), slack + MEAN * (high - low)),
        ("count", np.array([len(flat)]), 0.0),
    ):
        if kind in claims:
            _agree(claims[kind], got, within, f"{where}: {kind}", source)


def _agree(said: np.ndarray, got: np.ndarray, within: np.ndarray | float, where: str, source: str) -> None:
    wrong = np.flatnonzero(np.abs(said - got) > within)
    if len(wrong):
        place = int(wrong[0])
        at = f" in column {place}" if len(got) > 1 else ""
        raise StoreError(
            f"{where}: its statistics say {said[place]:.6g}{at}, its numbers make {got[place]:.6g} ({source}); "
            "the statistics are of another version of the set: compute them again"
        )


def of_the_set(root: Path, told: Info, data: list[Path], steps: int) -> None:
    """Raise StoreError where meta/stats.json does not agree with the footers of the data files."""
    path = root / "meta" / "stats.json"
    if not path.exists():
        return
    claims = lerobot_meta.statistics_of(checked.document(root, path, "the statistics of the set"), told, str(path))
    files = list(dict.fromkeys(data))
    for name, claim in claims.items():
        if "count" in claim and claim["count"][0] != steps:
            raise StoreError(f"{path}: {name}: count: says {claim['count'][0]:.0f}, but the set has {steps} steps")
        if told.features[name].dtype not in NUMBERS or "min" not in claim or "max" not in claim:
            continue
        found = parquet.bounds(files, name)
        if found is None:
            continue
        slack = EXACT * max(map(abs, found)) + 1e-8
        _agree(claim["min"].min(keepdims=True), np.array(found[:1]), slack, f"{path}: {name}: min", str(files[0]))
        _agree(claim["max"].max(keepdims=True), np.array(found[1:]), slack, f"{path}: {name}: max", str(files[0]))
