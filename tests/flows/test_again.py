"""Failures of a flow's task that another try may mend, and those that a person must see to."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateType

from flows import clone, evaluation, ingest, pipeline
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


def test_what_lies_in_a_clone_is_never_taken_from_a_cache() -> None:
    """A run that crashed holds no lock, so that its clone may be swept before it goes on."""
    for task in (clone.fetch, clone.give, pipeline.changed, pipeline.run_stage, ingest.publish, evaluation.again):
        assert task.cache_policy == NO_CACHE
    assert pipeline.promote.cache_policy != NO_CACHE, "its effect is in the registry"
