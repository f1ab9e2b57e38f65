"""Migrate results to renamed or removed parameters: `python -m vqbet.comparison.rekey COMMIT`, for instance b45e66a.

A key is a hash over parameters, so renaming or removing a parameter would orphan every result. First every key of
COMMIT is recomputed from its data, parameters and training time; if one differs, nothing is written. Then NOW is
applied.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqbet import environment
from vqbet.commands import console
from vqbet.comparison import grid
from vqbet.comparison.grid import Cell
from vqbet.config import document
from vqbet.contract import ConfigError
from vqbet.stages import artifacts

# sha256 of the manifest of data/<task>.zarr at COMMIT. With a wrong digest, no key is reproduced.
DIGESTS: Mapping[str, str] = {
    "pusht": "1541872e7d13bc40a7713cca9c259378ad2334689cf9c16e3c7a162ae80baa27",
    "kitchen": "51449adbc726b6160f217c71828688fa16e433e152bcdf55c9b7a65c3406e00e",
    "blockpush_drawn": "cce67feb3228b0ad4930610b5013fadaacbaf45858169bbeef39df195bffd751",
}
RESULTS, SIZES = "docs/results", "vqbet/comparison/params.yaml"  # params.yaml at commits without this file


@dataclass(frozen=True, slots=True)
class Tables:
    """Differences between the parameters of COMMIT and the present ones; keys are dotted.

    dropped: removed parameter -> the only value with which removing it changes nothing. replaced: parameter -> old
    value -> new value. variants: ablation -> its present changes.
    """

    dropped: Mapping[str, Any] = field(default_factory=dict)
    replaced: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


NOW = Tables(
    dropped={
        "tokenizer.reconstruction_weight": 1.0,
        "prior.compiled": False,
        "prior.mask_observation": 0.0,
        "prior.temperature": 1.0,
    },
    replaced={"tokenizer.kind": {"vq": "residual"}},
    variants={
        "no mirror image": {"demos.views": ["goal_frame"]},
        "demonstrations where they stopped": {"demos.views": ["mirrored"]},
        "no residual layer": {"tokenizer.layers": 1},
    },
)


def key(value: Mapping[str, Any], sizes: Mapping[str, Any]) -> str:
    """Return the key of a result, given as JSON, from its parameters, training time and data."""
    train_s = float(sizes[value["size"]]["ablation_s" if value["variant"] else "train_s"])
    names = {name: value[name] for name in ("task", "policy", "goal", "variant", "seed")}
    cell = Cell(**names, train_s=train_s, episodes=len(value["score"]), changes=tuple(sorted(value["changes"].items())))
    return grid.key(cell, value["params"], value["first_seed"], DIGESTS[value["task"]])


def translated(value: Mapping[str, Any], tables: Tables) -> dict[str, Any]:
    """Return the result with the present parameters. Raises ConfigError if a dropped parameter was not neutral."""
    made = deepcopy(dict(value))
    for name, neutral in tables.dropped.items():
        place, last = _place(made["params"], name)
        if last in place and place.pop(last) != neutral:
            raise ConfigError(f"{name}: {value['variant']!r} has another value than {neutral!r}: remove that result")
        made["changes"].pop(name, None)
    for name, values in tables.replaced.items():
        place, last = _place(made["params"], name)
        for holder, at in ((place, last), (made["changes"], name)):
            holder.update({at: values.get(holder[at], holder[at])} if at in holder else {})
    if value["variant"] in tables.variants:
        made["changes"] = dict(tables.variants[value["variant"]])
    return made


def rekeyed(files: Mapping[str, Any], sizes: Mapping[str, Any], tables: Tables) -> dict[str, Any]:
    """Return every result with its new key, by path. Raises ConfigError naming results whose old key differs."""
    wrong = [at for at, one in files.items() if key(one, sizes) != one["key"]]
    if wrong:
        raise ConfigError(f"{len(wrong)} of {len(files)} old keys differ, nothing was written: {', '.join(wrong[:3])}")
    new = {at: translated(one, tables) for at, one in files.items()}
    return {at: one | {"key": key(one, sizes)} for at, one in new.items()}


def run(root: Path, commit: str) -> str:
    """Write the results of `commit` with the present keys; return a summary. Raises like `rekeyed`."""
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder)
        _unpack(root, commit, old)
        paths, own = sorted((old / RESULTS).glob("*/*.json")), old / SIZES
        files = {str(path.relative_to(old)): artifacts.read_object(path) for path in paths}
        sizes = document.read(own)["sizes"] if own.is_file() else document.read(old / "params.yaml")["paper"]["sizes"]
    made = rekeyed(files, sizes, NOW)
    for name, value in made.items():
        artifacts.write_json(root / name, value)
    differ = sum(value["key"] != files[name]["key"] for name, value in made.items())
    return f"{len(files)} results of {commit}: every key reproduced, {differ} of them new"


def _place(params: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    *sections, last = name.split(".")
    for section in sections:
        params = params.get(section, {})
    return params, last


def _unpack(root: Path, commit: str, folder: Path) -> None:
    command = ["git", "archive", f"--output={folder / 'commit.tar'}", "--", commit]
    done = subprocess.run(command, cwd=root, capture_output=True, check=False)
    if done.returncode:
        raise ConfigError(f"git archive {commit}: {done.stderr.decode().strip()}; name a commit of this project")
    with tarfile.open(folder / "commit.tar") as archive:
        archive.extractall(folder, filter="data")


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: console.say(run(environment.prepare(), *(sys.argv[1:2] or ["HEAD"])))))
