"""What a gate films is what it judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import records, rollout
from vqbet.evaluation.pool import Assignment
from vqbet.evaluation.rollout import UNPLANNED, Film, Label
from vqbet.stages import films
from vqbet.stages.progress import Watch

TASK = "blockpush"


class Twice:
    """A pool that returns what it was told."""

    def __init__(self, *played: rollout.Play) -> None:
        self.played = list(played)

    def play(self, *_: object) -> list[rollout.Play]:
        return self.played


def test_a_film_of_another_episode_than_was_judged_is_refused(tmp_path: Path) -> None:
    judged = EpisodeRecord(TASK, "candidate", "d", "p", 7, 10, False, 0.25)
    records.write(tmp_path / "records.jsonl", [judged])
    film = Film([np.zeros((8, 8, 3), np.uint8)], 10.0)
    timing = rollout.Timing(np.ones(1), 10, 1.0)
    again = rollout.Play([replace(judged, score=0.5)], {0: film}, [], timing)
    plan = type("Plan", (), {"world": TASK})
    played = [Assignment(Label(TASK, "candidate", "", UNPLANNED, "a machine"), [7])]
    with pytest.raises(GateError, match="seed 7: candidate played it twice and scored otherwise"):
        films.worst(tmp_path, plan, Twice(again), played, Watch())  # type: ignore[arg-type]
    same = rollout.Play([judged], {0: film}, [], timing)
    films.worst(tmp_path, plan, Twice(same), played, Watch())  # type: ignore[arg-type]
    assert (tmp_path / "films" / "candidate-7.webm").is_file()
