"""What validation says of wrong data that is well formed, and of valid data that is unusual.

`python -m bench.wrong_data [--pusht FOLDER] [--kitchen FOLDER]`: 47 kinds of wrong data, made from 240 BlockPush oracle
episodes and from the published demonstrations where their folders are named, then the false errors on whole sets and on
200 valid variants. A kind counts as refused where an error names an episode and a field.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.unusual_data import variants
from bench.wrong_kinds import KINDS
from vqbet import config
from vqbet.contract import Demonstrations
from vqbet.demos import checks, validate
from vqbet.demos.importers import kitchen, pusht
from vqbet.demos.measured import Bounds, Measured
from vqbet.sims.blockpush_oracle import demonstrations

ROOT = Path(__file__).resolve().parent.parent
EPISODES = 240
VARIANTS = 200


def report(demos: Demonstrations, bounds: Mapping[str, Any]) -> validate.Report:
    return validate.validate(demos, **bounds)


def refused(demos: Demonstrations, bounds: Mapping[str, Any]) -> list[str]:
    """The exact checks with an error that names an episode and a field; "(advice)" where there is only advice."""
    found = checks.contents(Measured.of(demos, Bounds(**bounds)))
    errors = {each.check for each in found if each.severity == "error" and each.episode is not None and each.field}
    return sorted(errors) or ["(advice)"] * bool(found)


def sets(arguments: argparse.Namespace) -> dict[str, Demonstrations]:
    """Whole sets by task, those that were named."""
    found = {
        "blockpush": demonstrations(arguments.episodes, 0),
        "blockpush_drawn": demonstrations(arguments.episodes, 0, sides="drawn"),
    }
    if arguments.pusht:
        found["pusht"] = pusht.load(arguments.pusht)
    if arguments.kitchen:
        found["kitchen"] = kitchen.load(arguments.kitchen)
    return found


def bounds_of(task: str) -> dict[str, Any]:
    return config.task(ROOT / "params.yaml", task).validate_.model_dump()


def false_alarms(found: Mapping[str, Demonstrations]) -> None:
    for task, demos in found.items():
        whole = report(demos, bounds_of(task))
        said = f"{len(whole.errors)} errors, {len(whole.advice)} pieces of advice"
        print(f"{task}, {len(demos.lengths)} episodes: {said}", flush=True)
    wrong = 0
    per_task = VARIANTS // len(found)
    for task, demos in found.items():
        for name, variant in variants(demos, per_task):
            outcome = report(variant, bounds_of(task))
            wrong += bool(outcome.errors)
            for finding in outcome.errors:
                print(f"  FALSE {task}, {name}: {finding.check}: {finding.message}")
    print(f"{per_task * len(found)} valid variants: {wrong} with a false error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000, help="of each oracle")
    parser.add_argument("--pusht", type=Path)
    parser.add_argument("--kitchen", type=Path)
    arguments = parser.parse_args()
    found = sets(arguments)
    shown = {task: demos for task, demos in found.items() if task != "blockpush_drawn"}
    shown["blockpush"] = demonstrations(EPISODES, 0)
    print(f"| kind of wrong data | {' | '.join(shown)} |\n|---{'|---' * len(shown)}|")
    counts = dict.fromkeys(shown, 0)
    for name, kind in KINDS.items():
        cells = []
        for task, demos in shown.items():
            names = refused(kind(demos, np.random.default_rng(0)), bounds_of(task))
            counts[task] += bool(names) and names != ["(advice)"]
            cells.append(", ".join(names) or "accepted")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print("; ".join(f"{task}: {count} of {len(KINDS)} refused" for task, count in counts.items()))
    false_alarms(found)


if __name__ == "__main__":
    main()
