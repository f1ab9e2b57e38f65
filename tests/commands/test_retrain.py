"""The recipe trained again: apart from the graph's own training, kept, and known to the next verdict."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import stdev

import pytest

from tests.support.shrunk import shrunk
from vqbet import bundle, registry, versions
from vqbet.commands import plan, retrain
from vqbet.demos import store
from vqbet.evaluation import records
from vqbet.stages import retraining_history, runner
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks.blockpush.oracle import demonstrations

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent.parent
TASK = "blockpush"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project after the graph's own training and two others."""
    root = tmp_path_factory.mktemp("retrain")
    (root / ".dvc").mkdir()
    (root / ".vqbet").mkdir()
    subprocess.run(["git", "init", "--quiet", root], check=True)
    for name in (".dvc/config", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / '.vqbet' / 'mlflow.db'}")
        patch.delenv("DVC_SITE_CACHE_DIR", raising=False)
        store.write(Paths(root, TASK).store, demonstrations(6, 0))
        versions.add(root)
        for stage in retrain.STAGES[:3]:
            runner.run(root, TASK, stage, shrunk(TASK), Watch())
        retrain.run(root, TASK, shrunk(TASK), 2, Watch())
        yield root


@pytest.fixture
def root(home: Path, tmp_path: Path) -> Path:
    """A copy; the registry is the one."""
    return shutil.copytree(home, tmp_path / "copy", symlinks=True, ignore=shutil.ignore_patterns("mlflow*"))


def mine(root: Path) -> bundle.Bundle:
    return bundle.read(Paths(root, TASK).policy)


def test_every_training_is_another_and_has_its_own_place(root: Path) -> None:
    trained = [paths.training for paths in Paths(root, TASK).trainings()]
    assert trained == [1, 2]
    policies = [mine(root), *(bundle.read(paths.policy) for paths in Paths(root, TASK).trainings())]
    assert len({policy.digest for policy in policies}) == 3
    assert [policy.provenance["params"]["prior"]["seed"] for policy in policies] == [0, 1, 2]
    assert [policy.provenance["params"]["tokenizer"]["seed"] for policy in policies] == [0, 1, 2]
    assert sorted(path.name for path in (root / "artifacts").iterdir()) == [TASK]


def test_the_next_verdict_knows_them(root: Path) -> None:
    """Two values, however alike: of the records that are there and of no other policy."""
    scores = retraining_history.retrained(root, TASK, mine(root))
    found = [records.read(paths.evaluation / "records.jsonl") for paths in Paths(root, TASK).trainings()]
    assert sorted(scores) == pytest.approx(sorted(sum(r.score for r in played) / 3 for played in found))
    told = plan.run(root, TASK, shrunk(TASK))["trained again"]
    assert told == f"2 times, scores of a standard deviation of {stdev(scores):.3f}"


def test_what_is_there_is_not_made_again(root: Path) -> None:
    paths = Paths(root, TASK, 1)
    before = (paths.policy / bundle.MANIFEST).stat().st_mtime_ns
    said: list[str] = []
    rows = retrain.run(root, TASK, shrunk(TASK), 2, Watch(say=said.append))
    assert not said
    assert (paths.policy / bundle.MANIFEST).stat().st_mtime_ns == before
    assert list(rows) == ["training 1", "training 2", "together"]


def test_another_recipe_is_another_matter(root: Path) -> None:
    """Trainings of before the change say nothing of the policy of after it, and are made again."""
    wider = shrunk(TASK, prior={"width": 16})
    for stage in retrain.STAGES[:3]:
        runner.run(root, TASK, stage, wider, Watch())
    assert retraining_history.retrained(root, TASK, mine(root)) == []
    assert "vqbet retrain blockpush" in plan.run(root, TASK, wider)["trained again"]
    retrain.run(root, TASK, wider, 1, Watch())
    assert retraining_history.retrained(root, TASK, mine(root)) == [], "one training has no spread"
    retrain.run(root, TASK, wider, 2, Watch())
    assert len(retraining_history.retrained(root, TASK, mine(root))) == 2


def test_a_training_that_was_not_played_yet_is_not_counted(root: Path) -> None:
    for paths in Paths(root, TASK).trainings():
        (paths.evaluation / "records.jsonl").unlink()
    assert retraining_history.retrained(root, TASK, mine(root)) == []


def test_the_registry_knows_which_training_a_run_was(root: Path) -> None:
    from vqbet.registry import connection

    client = connection.client()
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert {"0", "1", "2"} <= {run.data.tags.get("training") for run in runs}
    assert registry.champion(TASK) is None
