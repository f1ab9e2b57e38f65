"""Results of `vqbet drift` for versions with a known difference: other seeds of BlockPush's oracle, and other oracles.

`python -m bench.drift` trains the shipped tokenizer on the demo's 1000 demonstrations and compares each version with
them. The table shows the largest value of each kind, in brackets where it is no more than chance.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vqbet import config
from vqbet.commands import drift
from vqbet.contract import Demonstrations
from vqbet.drift import DriftReport
from vqbet.stages import tokenizer
from vqbet.stages.progress import Watch
from vqbet.tasks.blockpush import oracle as blockpush_oracle
from vqbet.tasks.blockpush.oracle import demonstrations

ROOT = Path(__file__).resolve().parent.parent
TASK = "blockpush"


@contextmanager
def oracle(**changes: float) -> Iterator[None]:
    """Set other constants of BlockPush's oracle inside the block."""
    before = {name: getattr(blockpush_oracle, name) for name in changes}
    for name, value in changes.items():
        setattr(blockpush_oracle, name, value)
    yield
    for name, value in before.items():
        setattr(blockpush_oracle, name, value)


def versions(episodes: int) -> Iterator[tuple[str, Demonstrations]]:
    """Yield versions of the demonstrations, each with the name of its difference."""
    for seed in (1, 2, 3):
        yield f"seed {seed}", demonstrations(episodes, seed)
    yield "a tenth more episodes", demonstrations(episodes * 11 // 10, 0)
    for name, changes in (
        ("pushes at 3/4 of the speed", {"PUSH_M": 0.009}),
        ("1.5 times the noise", {"NOISE_M": 0.003}),
        ("approaches at 3/4 of the speed", {"FREE_M": 0.015}),
    ):
        with oracle(**changes):
            yield name, demonstrations(episodes, 1)
    drawn = demonstrations(episodes, 1, sides="drawn")
    yield "sides drawn", replace(drawn, spec=blockpush_oracle.SPECS["fixed"])


def line(name: str, report: DriftReport) -> str:
    """Return one row of the table."""
    kinds = {
        "shift": [(each.distance, each.name) for each in report.shifts],
        "divergence": [(each.divergence, f"layer {each.layer}") for each in report.layers],
        "tail": [(each.ratio, f"tail of {each.name}") for each in report.tails],
    }
    cells = []
    for found in kinds.values():
        value, what = max(found)
        shown = f"{value:.3g}"
        cells.append(shown if report.more_than_chance(what) else f"({shown})")
    asks = [each.asks for each in report.exceeded]  # tokenizer first
    return f"| {name} | {' | '.join(cells)} | {asks[0] if asks else '-'} |"


def main() -> None:
    params = config.task(ROOT / "params.yaml", TASK)
    old = demonstrations(params.demos.episodes, params.demos.seed)
    with tempfile.TemporaryDirectory() as folder:
        made = tokenizer.fit(params.tokenizer, old, wanted=(), folder=Path(folder), fingerprint="bench", watch=Watch())
    print("| what is different | max_shift | max_divergence | max_tail | asks for a new |")
    print("|---|---|---|---|---|")
    for name, new in versions(params.demos.episodes):
        report = drift.measured((made.tokenizer, ()), old, new, params.drift, ("the demo's", name), Watch())
        print(line(name, report), flush=True)


if __name__ == "__main__":
    main()
