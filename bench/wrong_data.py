"""Results of validation on wrong but well-formed data, and on valid but unusual data.

`python -m bench.wrong_data [--pusht FOLDER] [--kitchen FOLDER] [--lerobot FOLDER]` validates 47 kinds of wrong data,
made from 240 BlockPush oracle episodes and from the published demonstrations in the folders, then counts false errors
on whole sets and on 200 valid variants. A kind counts as refused where an error names an episode and a field.

"by name" and "learned" are BlockPush as a task outside the table of tasks, with its channel names and without them.
LeRobot's data is read from a folder in format 2.1, also as a task outside the table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.unusual_data import anonymous, renamed, variants
from bench.wrong_kinds import KINDS
from vqbet import config, tasks
from vqbet.contract import Channel, Demonstrations, Spec
from vqbet.demos.validation import checks, validate
from vqbet.demos.validation.measured import Bounds, Measured
from vqbet.tasks.blockpush.oracle import demonstrations
from vqbet.tasks.kitchen import importer as kitchen
from vqbet.tasks.pusht import importer as pusht

ROOT = Path(__file__).resolve().parent.parent
EPISODES = 240
VARIANTS = 200
SHIPPED = ("blockpush", "blockpush_drawn", "kitchen", "pusht")


def report(demos: Demonstrations, bounds: Mapping[str, Any]) -> validate.Report:
    return validate.validate(demos, tasks.of(demos.spec).validation(), **bounds)


def refused(demos: Demonstrations, bounds: Mapping[str, Any]) -> list[str]:
    """Return the exact checks with an error that names episode and field; "(advice)" where there is only advice."""
    found = checks.contents(Measured.of(demos, Bounds(**bounds), tasks.of(demos.spec).validation()))
    errors = {each.check for each in found if each.severity == "error" and each.episode is not None and each.field}
    return sorted(errors) or ["(advice)"] * bool(found)


def sets(arguments: argparse.Namespace) -> dict[str, Demonstrations]:
    """Return whole sets by task: BlockPush, and those whose folders are given."""
    found = {
        "blockpush": demonstrations(arguments.episodes, 0),
        "blockpush_drawn": demonstrations(arguments.episodes, 0, sides="drawn"),
    }
    for name, load in (("pusht", pusht.load), ("kitchen", kitchen.load), ("lerobot", lerobot)):
        folder = getattr(arguments, name)
        if folder:
            found[name] = load(folder)
    return found


def lerobot(folder: Path) -> Demonstrations:
    """Read a LeRobot data set of format 2.1: states and actions only, joints in rad, every episode a success."""
    import pandas

    info = json.loads((folder / "meta" / "info.json").read_text())
    tables = [pandas.read_parquet(path) for path in sorted(folder.glob("data/chunk-*/episode_*.parquet"))]
    names = info["features"]["action"]["names"][0]
    channels = tuple(Channel(name, "rad", -4.0, 4.0) for name in names)
    lengths = np.array([len(table) for table in tables])
    observation, action = (
        np.concatenate([np.stack(table[key]) for table in tables]).astype(np.float32)
        for key in ("observation.state", "action")
    )
    words = {"session": "published", "operator": "human", "source": "lerobot", "task": "lerobot"}
    return Demonstrations(
        spec=Spec("lerobot", channels, channels, float(info["fps"]), "absolute", "robot"),
        observation=observation,
        action=action,
        time_s=np.concatenate([np.arange(length) for length in lengths]) / info["fps"],
        episode_ends=np.cumsum(lengths, dtype=np.int64),
        columns={name: np.full(len(lengths), word) for name, word in words.items()}
        | {"seed": np.full(len(lengths), -1), "success": np.ones(len(lengths), bool)},
    )


def bounds_of(task: str) -> dict[str, Any]:
    shipped = config.task(ROOT / "params.yaml", task if task in SHIPPED else "blockpush").validate_.model_dump()
    return shipped | ({} if task in SHIPPED else {"max_steps": 1000})


def false_alarms(found: Mapping[str, Demonstrations]) -> None:
    for task, demos in found.items():
        whole = report(demos, bounds_of(task))
        said = f"{len(whole.errors)} errors, {len(whole.advice)} pieces of advice"
        print(f"{task}, {len(demos.lengths)} episodes: {said}", flush=True)
    wrong, each = 0, VARIANTS // len(found)
    for task, demos in found.items():
        for name, variant in variants(demos, each):
            outcome = report(variant, bounds_of(task))
            wrong += bool(outcome.errors)
            for finding in outcome.errors:
                print(f"  FALSE {task}, {name}: {finding.check}: {finding.message}")
    print(f"{each * len(found)} valid variants: {wrong} with a false error")


def altered(found: Mapping[str, Demonstrations]) -> dict[str, Demonstrations]:
    """Return the sets that wrong data is made from, by column of the table."""
    few, random = demonstrations(EPISODES, 0), np.random.default_rng(0)
    own = {"blockpush": few, "by name": renamed(few, random), "learned": anonymous(few, random)}
    return own | {task: demos for task, demos in found.items() if not task.startswith("blockpush")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000, help="of each oracle")
    for name in ("pusht", "kitchen", "lerobot"):
        parser.add_argument(f"--{name}", type=Path)
    found = sets(parser.parse_args())
    columns = altered(found)
    print(f"| kind of wrong data | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    counts = dict.fromkeys(columns, 0)
    for name, kind in KINDS.items():
        cells = []
        for column, demos in columns.items():
            names = refused(kind(demos, np.random.default_rng(0)), bounds_of(column))
            counts[column] += bool(names) and names != ["(advice)"]
            cells.append(", ".join(names) or "accepted")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print("; ".join(f"{column}: {count} of {len(KINDS)} refused" for column, count in counts.items()))
    false_alarms(found)


if __name__ == "__main__":
    main()
