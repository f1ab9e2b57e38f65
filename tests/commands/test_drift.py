"""Drift from the champion's demonstrations: a real registry, a real DVC repository, a tokenizer that needs no training.

One project for the file: its champion was trained on a version of data/ that has been replaced since.
"""

from __future__ import annotations

import getpass
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.synthetic import synthetic
from vqbet import bundle, registry, tasks, versions
from vqbet.commands import drift
from vqbet.config import DriftParams
from vqbet.contract import BundleError, ConfigError, Demonstrations, PipelineError, RegistryError, StoreError
from vqbet.coordinates.action_reference import absolute
from vqbet.demos import store
from vqbet.demos.windows import complete_chunks
from vqbet.models.normalizer import Normalizer
from vqbet.models.prior import Prior, PriorShape
from vqbet.models.tokenizer import Tokenizer, TokenizerShape
from vqbet.policies.actor import Actor
from vqbet.policies.vqbet import VQBeT
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import Task

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent.parent
TASK = "synthetic"
LIMITS = DriftParams(max_shift=0.2, max_divergence=0.05, max_tail=1.5)


def policy(folder: Path, demos: Demonstrations, **provenance: object) -> str:
    """A policy whose tokenizer knows these chunks by k-means, and whose prior knows nothing; gives its digest."""
    torch.manual_seed(0)
    shape = TokenizerShape(chunk=3, layers=2, codes=8, latent=8, hidden=8, kind="kmeans")
    tokenizer = Tokenizer(Normalizer.fit(demos.action, demos.spec.action), shape)
    tokenizer.initialise(complete_chunks(demos, 3), torch.Generator().manual_seed(0))
    small = PriorShape(window=1, depth=1, heads=1, width=8, head_hidden=8, dropout=0.0, sequential=False)
    observed = Normalizer.fit(demos.observation, demos.spec.observation)
    actor = Actor(demos.spec, VQBeT(Prior(tokenizer.eval(), observed, small)), execute="first")
    return bundle.write(
        folder,
        kind="vqbet",
        spec=demos.spec,
        arguments=actor.arguments(),
        components=actor.components(),
        provenance=provenance,
    )


@pytest.fixture(scope="module")
def old() -> Demonstrations:
    return synthetic(40, seed=0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, old: Demonstrations) -> Iterator[Path]:
    """The project after its champion, with a newer version of data/ that holds other seeds of the same process."""
    root = tmp_path_factory.mktemp("drift") / "a project"
    (root / ".dvc").mkdir(parents=True)
    (root / ".vqbet").mkdir()
    subprocess.run(["git", "init", "--quiet", root], check=True)
    for name in (".dvc/config", ".dvc/.gitignore", ".dvc/plots.html", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    paths = Paths(root, TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / '.vqbet' / 'mlflow.db'}")
        patch.delenv("DVC_SITE_CACHE_DIR", raising=False)
        assert "no champion yet" in drift.run(root, TASK, LIMITS, "", Watch()).conclusion
        assert not (root / ".vqbet" / "mlflow.db").exists(), "asking costs no registry"
        digest = policy(paths.policy, old, data=store.write(paths.store, old))
        tags = {"digest": digest, "data_version": versions.add(root).md5}
        versions.push(root)
        number = registry.register(TASK, paths.policy, tags=tags, spec=old.spec)
        registry.force(TASK, number, who=getpass.getuser(), why="a test")
        store.write(paths.store, synthetic(40, seed=1))
        versions.add(root)
        yield root


@pytest.fixture
def root(home: Path, tmp_path: Path) -> Path:
    """A clone: data/, its versions and the remote are its own, the registry is the one."""
    return shutil.copytree(home, tmp_path / "a clone", symlinks=True, ignore=shutil.ignore_patterns("mlflow*"))


def put(root: Path, demos: Demonstrations) -> None:
    store.write(Paths(root, TASK).store, demos)


def told(root: Path) -> dict:
    return json.loads((root / "artifacts" / TASK / "drift" / "drift.json").read_text(encoding="utf-8"))


def run(root: Path, against: str = "") -> drift.Drift:
    return drift.run(root, TASK, LIMITS, against, Watch())


def test_other_seeds_of_the_process_fit(root: Path, old: Demonstrations) -> None:
    found = run(root)
    assert (found.conclusion, found.exceeded) == ("the champion's tokenizer still fits", False)
    assert found.rows["episodes"] == "0 kept, 40 added, 40 removed, 0 changed"
    value = told(root)
    assert value["against"]["policy"] == "synthetic/1"
    assert value["against"]["data_dvc"] == registry.resolve("synthetic/1").tags["data_version"]
    assert value["present"]["data_dvc"] == versions.data_version(root) != value["against"]["data_dvc"]
    assert value["present"]["store"] == store.digest(Paths(root, TASK).store)
    assert [path.name for path in (root / ".vqbet").glob("drift-*")] == []
    page = (root / found.rows["open"]).read_text(encoding="utf-8")
    assert "TOKENIZER STILL FITS" in page
    assert not re.search(r"(src|href)=|https?://", page)


def test_a_tokenizer_of_positions_is_asked_about_positions(
    root: Path, old: Demonstrations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands of which each leads a tenth of a metre; asked about those themselves it would know none of them."""
    task = Task(spec=old.spec, action_reference=(("feature_0", 0.1), ("feature_1", 0.1)))
    monkeypatch.setattr(tasks, "of", lambda spec: task)
    put(root, old)
    led = replace(absolute(old, task.action_reference), spec=old.spec)
    data, params = store.digest(Paths(root, TASK).store), {"tokenizer": {"absolute": True, "mirrored": True}}
    digest = policy(tmp_path / "policy", led, data=data, params=params)
    run(root, registered(tmp_path / "policy", old.spec, {"digest": digest}))
    tails = told(root)["tails"]
    assert [tail["name"] for tail in tails] == ["action.feature_0_wanted", "action.feature_1_wanted"]
    assert max(tail["old_mean"] / tail["scale"] for tail in tails) < 0.3
    assert [shift["name"] for shift in told(root)["shifts"] if shift["side"] == "action"] == [
        "action.target_0",
        "action.target_1",
    ]


def test_the_same_again_is_the_same_bytes(root: Path) -> None:
    folder = root / "artifacts" / TASK / "drift"
    run(root)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    run(root)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert set(first) == {"drift.json", "index.html"}


def test_a_shifted_action_asks_for_a_new_tokenizer_also_from_the_remote_alone(root: Path, old: Demonstrations) -> None:
    action = old.action.copy()
    action[:, 1] += 0.5 * action[:, 1].std()
    put(root, replace(old, action=action))
    shutil.rmtree(root / ".dvc" / "cache")
    found = run(root, "synthetic/1")
    assert found.exceeded
    assert found.conclusion.startswith("a new tokenizer is needed: max_shift is 0.2, but action.target_1 has 0.5")
    assert found.rows["episodes"] == "0 kept, 0 added, 0 removed, 40 changed"
    assert told(root)["exceeded"][0]["what"] == "action.target_1"


def test_the_champions_own_store_needs_no_version_of_it(root: Path, old: Demonstrations) -> None:
    """Whatever data.dvc says, what lies there is what it was trained on."""
    put(root, old)
    shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(root / ".vqbet" / "remote")
    assert run(root).rows["episodes"] == "40 kept, 0 added, 0 removed, 0 changed"
    assert not run(root).exceeded


def test_one_flipped_byte_in_the_remote_is_refused(root: Path) -> None:
    shutil.rmtree(root / ".dvc" / "cache")
    for path in (root / ".vqbet" / "remote" / "files").rglob("*"):
        if path.is_file() and path.suffix != ".dir":
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.chmod(0o644)
            path.write_bytes(content)
    with pytest.raises(PipelineError, match=r"data version .*synthetic\.zarr/.* is damaged"):
        run(root)
    assert not (root / "artifacts" / TASK / "drift").exists()


def test_specs_that_differ_name_the_channel(root: Path, old: Demonstrations) -> None:
    renamed = replace(old.spec.observation[2], name="wrist")
    channels = (*old.spec.observation[:2], renamed, old.spec.observation[3])
    put(root, replace(old, spec=replace(old.spec, observation=channels)))
    with pytest.raises(StoreError, match=r"synthetic\.zarr cannot be compared .*observation\[2\]: .*feature_2.*wrist"):
        run(root)


def test_episodes_too_short_for_the_tokenizer(root: Path, old: Demonstrations) -> None:
    put(
        root,
        replace(
            old,
            observation=old.observation[:4],
            action=old.action[:4],
            time_s=old.time_s[:4],
            state=old.state[:4],
            episode_ends=np.array([2, 4]),
            columns={name: column[:2] for name, column in old.columns.items()},
        ),
    )
    with pytest.raises(StoreError, match=r"synthetic\.zarr: the longest episode has 2 steps, .* chunks of 3"):
        run(root)


def test_a_policy_of_another_task_or_of_none(root: Path) -> None:
    with pytest.raises(RegistryError, match="synthetic@nobody: no such version"):
        run(root, "synthetic@nobody")
    with pytest.raises(ConfigError, match="--against: expected sofa@<alias> or sofa/<version>, got 'synthetic/1'"):
        drift.run(root, "sofa", LIMITS, "synthetic/1", Watch())
    assert "sofa has no champion yet" in drift.run(root, "sofa", LIMITS, "", Watch()).conclusion


def registered(folder: Path, spec, tags: dict[str, str]) -> str:
    return f"{TASK}/{registry.register(TASK, folder, tags=tags, spec=spec)}"


def test_a_data_version_that_is_not_what_it_was_trained_on(root: Path, old: Demonstrations, tmp_path: Path) -> None:
    """The planted fault: registered again after other data came in, so its tag names a version it never saw."""
    digest = policy(tmp_path / "policy", old, data=store.digest(Paths(root, TASK).store))
    put(root, old)
    tags = {"digest": digest, "data_version": registry.resolve("synthetic/1").tags["data_version"]}
    reference = registered(tmp_path / "policy", old.spec, tags)
    with pytest.raises(PipelineError, match=r"was trained on the store .*, but data.dvc .* holds .*; register"):
        run(root, reference)


def test_a_policy_that_cannot_be_traced(root: Path, old: Demonstrations, tmp_path: Path) -> None:
    digest = policy(tmp_path / "untagged", old, data="0" * 64)
    with pytest.raises(RegistryError, match="has no tag data_dvc"):
        run(root, registered(tmp_path / "untagged", old.spec, {"digest": digest}))
    digest = policy(tmp_path / "untold", old)
    with pytest.raises(BundleError, match="does not say which store it was trained on"):
        run(root, registered(tmp_path / "untold", old.spec, {"digest": digest}))


def test_after_an_ingest_an_obstacle_is_told_and_stops_nothing(root: Path, old: Demonstrations) -> None:
    heard: list[str] = []
    watch = Watch(say=heard.append)
    assert drift.after_ingest(root, TASK, LIMITS, watch).rows["episodes"].startswith("0 kept")
    put(root, replace(old, spec=replace(old.spec, control_hz=7.0)))
    found = drift.after_ingest(root, TASK, LIMITS, watch)
    assert found.conclusion.startswith("not compared with the champion's demonstrations: ")
    assert "control_hz: 10.0 here, 7.0 there" in found.conclusion
    assert heard == ["drift: the champion's tokenizer still fits", f"drift: {found.conclusion}"]


def test_after_an_ingest_the_champions_own_store_is_not_measured(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = drift.registry.champion(TASK)
    assert champion is not None
    tags = {**champion.tags, "store": store.digest(Paths(root, TASK).store)}
    monkeypatch.setattr(drift, "_against", lambda *_: replace(champion, tags=tags))
    monkeypatch.setattr(drift, "run", lambda *_: pytest.fail("measured"))
    found = drift.after_ingest(root, TASK, LIMITS, Watch())
    assert found.conclusion == f"none: {TASK}/{champion.version}, the champion, was trained on these demonstrations"
    assert not found.exceeded
