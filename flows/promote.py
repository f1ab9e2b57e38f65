"""Promotion flow for a person or a schedule: the last task of the pipeline, on its own."""

from __future__ import annotations

from prefect import flow

from flows import pipeline


@flow(name="promote", flow_run_name="promote {task_name}", persist_result=True, result_serializer="json")
def promote(task_name: str = "blockpush", candidate: int = 0, why: str = "the gate's verdict") -> dict[str, str]:
    """Make `candidate` (a version number; 0: the alias candidate) the champion, if its verdict allows it."""
    return pipeline.promote(task_name, candidate, why)
