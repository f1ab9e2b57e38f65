"""A task without a world, with held-out episodes: evaluated, rejected or held, sealed, registered; never promoted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.judging import SECTIONS, TASK
from tests.support.judging import params as read
from tests.support.project import Project
from vqbet import bundle, registry, versions
from vqbet.commands import release, summary
from vqbet.config import TaskParams
from vqbet.contract import ConfigError, Demonstrations, GateError
from vqbet.demos import held_out, store
from vqbet.evaluation import evidence
from vqbet.models.nets import tensors
from vqbet.models.spaces import Spaces
from vqbet.stages import preflight, runner, verdicts
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import TASKS
from vqbet.tasks.blockpush.oracle import demonstrations

pytestmark = pytest.mark.slow
GATE = {**SECTIONS["gate"], "evidence": ["robot"], "offline_floor": 0.0, "offline_baselines": []}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project without a world whose policy has not seen a third of 18 episodes, after all its stages."""
    root = tmp_path_factory.mktemp("held") / "project"
    project = Project(root)
    project.small(sections={**SECTIONS, "demos": {"held_out": 0.34, "episodes": 18}, "gate": GATE})
    project.commit()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / '.vqbet' / 'mlflow.db'}")
        patch.setenv("VQBET_HOME", str(root / ".vqbet"))
        patch.delenv("DVC_SITE_CACHE_DIR", raising=False)
        patch.setattr(release.versions, "unmade", lambda root, stages: [])  # stages ran outside the graph
        patch.setitem(TASKS._rows, TASK, "tests.support.worldless:TASK")  # type: ignore[index]
        store.write(Paths(root, TASK).store, demonstrations(18, 0))
        versions.add(root)
        for name in runner.ORDER:
            runner.run(root, TASK, name, read(root), Watch())
        yield root


def again(root: Path, params: TaskParams, *names: str) -> dict[str, str]:
    paths = Paths(root, TASK)
    for name in names:
        for folder in {"gate": (paths.gate,), "report": (paths.report,)}[name]:
            shutil.rmtree(folder)
        runner.run(root, TASK, name, params, Watch())
    return json.loads((paths.gate / "verdict.json").read_text())


def test_held_out_episodes_are_not_learned_from(held: Path) -> None:
    paths = Paths(held, TASK)
    demos = store.read(paths.store)
    rest = held_out.split(demos, 0.34).train
    prior = bundle.read(paths.prior)
    assert prior.provenance["held_out"] == 0.34
    fitted = Spaces.fit(rest, ()).observation
    for name, value in tensors(fitted).items():
        assert np.array_equal(prior.components["normalizer"][f"observation.{name}"], value)
    assert len(rest.lengths) == 12
    assert bundle.read(paths.policy).provenance["params"]["demos"] == {"views": [], "held_out": 0.34}


def test_the_evaluation_compares_with_predictions_that_need_no_policy(held: Path) -> None:
    paths = Paths(held, TASK)
    said = json.loads((paths.evaluation / "offline.json").read_text())
    part = said["sets"]["episodes"]
    demos = store.read(paths.store)
    assert part["numbers"] == held_out.split(demos, 0.34).episodes.tolist()
    assert {"policy", "policy, likeliest", "previous", "linear", "nearest", "mean"} <= set(part["predictions"])
    assert len(part["predictions"]["policy"]["next"]) == len(demos.spec.action)
    assert part["beaten"]["next"], "a policy of four training steps is worse than a linear map"
    metrics = json.loads(paths.metrics("evaluate").read_text())
    assert metrics["episodes"] == 0.0
    assert metrics["held_out"] == 6.0
    assert metrics["error_policy_next"] == part["predictions"]["policy"]["next_mean"]


def test_the_page_marks_what_beats_the_policy(held: Path) -> None:
    page = (Paths(held, TASK).report / "index.html").read_text()
    assert "Held-out episodes" in page
    assert "<b>policy</b>" in page
    assert 'class="number bad"' in page
    assert "trials on the robot decide" in page
    assert page.count("<svg") > 4
    rows = [page.index(f"<td>{name}") for name in ("<b>policy</b>", "previous ", "linear ", "nearest ", "mean ")]
    assert rows == sorted(rows)


def test_held_is_not_promoted_and_needs_the_robot(held: Path) -> None:
    paths = Paths(held, TASK)
    verdict = json.loads((paths.gate / "verdict.json").read_text())
    assert verdict["outcome"] == "HOLD"
    assert "needs robot trials" in verdict["reason"]
    assert summary.rows(held, TASK, [])["next action"].endswith("6 held-out episodes")
    done = release.register(held, TASK)
    shown = registry.show(f"{TASK}@candidate")
    assert shown["verdict"].startswith("HOLD: held-out episodes cannot show")
    (sought,) = [row for name, row in release.show(f"{TASK}@candidate").items() if name.startswith("held out, plan")]
    assert "6 episodes, floor 0, not worse than nothing: HOLD, evidence" in sought
    assert done["digest"] == verdict["candidate"]
    with pytest.raises(GateError, match="asks for robot evidence, and no session about candidate"):
        release.promote(held, TASK, candidate=0, why="w", watch=Watch())


def test_the_verdict_is_sealed_and_replayed_and_a_changed_record_breaks_it(held: Path, tmp_path: Path) -> None:
    (attempt,) = [one for one in registry.Attempts(TASK).all if not one.content["baselines"]]
    assert not attempt.simulated
    assert attempt.outcome == "HOLD"
    assert verdicts.replay(held, attempt.evidence)["recomputed"] == "byte for byte the same"
    copy = tmp_path / attempt.evidence
    shutil.copytree(Paths(held, TASK).verdicts / attempt.evidence, copy)
    assert evidence.replay(copy).outcome == "HOLD"
    path = copy / "records.jsonl"
    path.write_text(path.read_text().replace('"score":0.', '"score":0.9', 1))
    with pytest.raises(GateError, match="was changed"):
        evidence.replay(copy)


def test_a_policy_below_the_floor_is_rejected(held: Path) -> None:
    params = read(held)
    strict = params.model_copy(update={"gate": params.gate.model_copy(update={"offline_floor": 0.95})})
    verdict = again(held, strict, "gate", "report")
    assert verdict["outcome"] == "REJECT"
    assert "floor on held-out episodes failed" in verdict["reason"]
    assert "do not try it" in (Paths(held, TASK).report / "index.html").read_text()
    assert release.register(held, TASK)
    assert registry.show(f"{TASK}@candidate")["verdict"].startswith("REJECT: on held-out episodes")


def test_what_would_stop_the_evaluation_is_a_sentence_before_anything_is_trained(held: Path) -> None:
    params, paths = read(held), Paths(held, TASK)
    asked = params.model_copy(
        update={
            "gate": params.gate.model_copy(update={"offline_baselines": ["measured"]}),
            "tokenizer": params.tokenizer.model_copy(update={"chunk": 64}),
        }
    )
    found = [str(error) for error in preflight.wrong(paths, asked)]
    assert any("offline_baselines: measured: no action is absolute" in sentence for sentence in found)
    shortest = store.read(paths.store).lengths.min()
    assert any("tokenizer.chunk: 64 actions and one before them" in sentence for sentence in found) == (shortest <= 64)


def test_a_leaked_episode_is_a_sentence_before_anything_is_trained(held: Path) -> None:
    """Planted: the newest session holds a training episode again."""
    demos = store.read(Paths(held, TASK).store)
    doubled = held_out.chosen(demos, np.array([*range(18), 4]))
    labels = np.array(["old"] * 18 + ["new"])
    leaked = Demonstrations(
        **{
            name: getattr(doubled, name)
            for name in ("spec", "observation", "action", "time_s", "episode_ends", "state", "intervention")
        },
        columns={**doubled.columns, "session": labels},
    )
    params = read(held)
    asked = params.model_copy(
        update={"demos": params.demos.model_copy(update={"held_out": 0.0, "held_out_sessions": 1})}
    )
    (error,) = preflight.of_data(TASK, asked, leaked)
    assert isinstance(error, ConfigError)
    assert "episode 18 is training episode 4, bit for bit" in str(error)
