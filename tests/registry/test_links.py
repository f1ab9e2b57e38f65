"""Links between MLflow's pages, the flow run that made something, and the report on a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.shelf import SPEC as TINY
from tests.support.shelf import bundle, proof, registered
from vqbet import registry
from vqbet.registry import connection, links
from vqbet.registry.attachments import NOTE

FLOW = "https://prefect.lab/runs/flow-run/7"
EVIDENCE = proof("a verdict")


def run_of(stage: str) -> Any:
    client = connection.client()
    number = client.get_experiment_by_name("tiny").experiment_id
    (found,) = client.search_runs([number], f"tags.stage = '{stage}'")
    return found


@pytest.fixture
def version(home: Path, tmp_path: Path) -> registry.Version:
    """A registered policy with a verdict whose evidence and report are in the registry."""
    (folder := tmp_path / EVIDENCE).mkdir()
    (folder / "verdict.json").write_text("{}")
    registry.keep("tiny", folder, metrics={}, tags={"outcome": "PROMOTE", "reason": "better", "digest": "d"})
    (tmp_path / "index.html").write_text("report")
    registry.attach(EVIDENCE, tmp_path / "index.html")
    digest = bundle(tmp_path / "one", "one")
    tags = {"digest": digest, "verdict": "PROMOTE: better", "evidence": EVIDENCE}
    return registry.resolve(f"tiny/{registry.register('tiny', tmp_path / 'one', tags=tags, spec=TINY)}")


def test_a_stage_links_to_the_flow_run_at_work(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, address in (("prior", FLOW), ("bundle", "")):
        monkeypatch.setenv(links.VARIABLE, address)
        with registry.run("tiny", name, params={}, tags={}) as record:
            links.started_by(record)
    tags = run_of("prior").data.tags
    assert (tags[links.TAG], tags[NOTE]) == (FLOW, f"[flow run]({FLOW})")
    assert not {links.TAG, NOTE} & run_of("bundle").data.tags.keys()


def test_the_flow_run_that_judged_is_linked_once(version: registry.Version) -> None:
    before = run_of("verdict").data.tags[NOTE]
    links.judged_by(EVIDENCE, FLOW)
    links.judged_by(EVIDENCE, "https://prefect.lab/runs/flow-run/8")
    tags = run_of("verdict").data.tags
    assert (tags[links.TAG], tags[NOTE]) == (FLOW, f"{before}\n\n[flow run]({FLOW})")
    assert "[evaluation report](#/experiments/" in tags[NOTE]
    links.judged_by(proof("another"), FLOW)  # unknown here: nothing to link from


def test_a_version_is_described_by_its_verdict_and_links_that_hold_at_any_address(version: registry.Version) -> None:
    links.judged_by(EVIDENCE, FLOW)
    links.describe(version)
    run = run_of("verdict").info
    own = f"#/experiments/{run.experiment_id}/runs/{run.run_id}"
    assert connection.client().get_model_version("tiny", "1").description == (
        f"PROMOTE: better\n\n[evaluation report]({own}/artifacts/index.html) · [run of the verdict]({own}) · "
        f"[flow run]({FLOW})"
    )


def test_a_version_without_evidence_has_its_verdict_alone(home: Path, tmp_path: Path) -> None:
    ((number, _),) = registered(tmp_path, "two")
    links.describe(registry.resolve(f"tiny/{number}"))
    assert connection.client().get_model_version("tiny", str(number)).description == "PROMOTE: good"


def test_addresses_are_those_of_the_server_without_its_password(
    version: registry.Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert links.pages(version) == {}, "a file has no pages"
    links.judged_by(EVIDENCE, FLOW)
    run, client = run_of("verdict").info, connection.client()
    monkeypatch.setattr(connection, "client", lambda: client)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:secret@mlflow.lab/")
    own = f"https://mlflow.lab/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    assert links.pages(version) == {
        "tiny version 1": "https://mlflow.lab/#/models/tiny/versions/1",
        links.REPORT: f"{own}/artifacts/index.html",
        "run of the verdict": own,
        "flow run": FLOW,
    }
