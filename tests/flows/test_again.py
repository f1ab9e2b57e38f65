"""Failures of a flow's task that another try may mend, and those that a person must see to."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.client.schemas.objects import State, StateType

from flows import clone, pipeline
from vqbet import versions
from vqbet.commands import unanswered
from vqbet.contract import PipelineError, RegistryError


def told(error: Exception) -> bool:
    nothing: Any = None
    return clone.interrupted(nothing, nothing, State(type=StateType.FAILED, data=error))


def unreached() -> RegistryError:
    error = RegistryError("the ledger cannot be read")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    return error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (versions.Killed("dvc repro prior@blockpush: was killed"), True),
        (PipelineError(f"dvc repro gate@blockpush: no MLflow server answers; {unanswered.ADVICE}"), True),
        (unreached(), True),
        (PipelineError("dvc repro validate@blockpush: channel x: 3 values are not finite"), False),
        (RegistryError("blockpush: this verdict was used by an earlier entry"), False),
    ],
)
def test_a_task_is_tried_again_after_a_kill_or_an_outage_alone(error: Exception, again: bool) -> None:
    assert told(error) == again


def test_every_task_of_the_pipeline_is_tried_again() -> None:
    for task in (pipeline.changed, pipeline.run_stage, pipeline.register, pipeline.promote):
        assert task.retries == len(clone.DELAYS_S)
        assert task.retry_condition_fn is clone.interrupted
