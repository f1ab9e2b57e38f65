"""A frozen encoder, through the stages: pictures are encoded once, and the policy acts on the same features."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.recorded import recorded
from tests.support.shrunk import shrunk
from tests.support.synthetic import synthetic
from vqbet import bundle as bundles
from vqbet import policies
from vqbet.config import EncoderParams, TaskParams
from vqbet.contract import Demonstrations, StoreError
from vqbet.demos import store
from vqbet.models.encoders import Conv, seen
from vqbet.models.nets import tensors
from vqbet.stages import artifacts, bundle, eyes, features, prior, tokenizer
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import TASKS
from vqbet.tasks.pusht.camera import pictures

TASK = "pusht_image"
SHAPE = {"kind": "conv", "features": 8, "crop": 0.9, "shift": 0, "pool": "average", "keypoints": 4, "frozen": True}


@pytest.fixture(scope="module")
def demos() -> Demonstrations:
    env, rng = TASKS[TASK].world(), np.random.default_rng(0)
    made = recorded(env, env.reset(np.arange(5)), lambda seen: rng.uniform(100, 400, (len(seen), 2)), 15)
    columns = {**synthetic(5).columns, "task": np.full(5, TASK)}
    return replace(made, columns=columns, cameras={"image": pictures(made.state)})


@pytest.fixture
def paths(tmp_path: Path, demos: Demonstrations) -> Paths:
    found = Paths(tmp_path, TASK)
    store.write(found.store, demos)
    return found


def params(paths: Paths, seed: int = 0, **demos: object) -> TaskParams:
    """The task's parameters with a frozen encoder, whose weights are drawn with the seed."""
    torch.manual_seed(seed)
    sha256 = bundles.write_tensors(paths.root / "weights.safetensors", tensors(Conv()))
    encoder = SHAPE | {"weights": {"file": "weights.safetensors", "sha256": sha256}}
    return shrunk(TASK, prior={"encoder": encoder}, demos=demos)


@pytest.mark.parametrize("pool", ["average", "spatial_softmax"])
def test_features_of_the_stage_are_those_of_acting_bit_for_bit(paths: Paths, demos: Demonstrations, pool: str) -> None:
    chosen = params(paths)
    chosen = shrunk(TASK, prior={"encoder": chosen.prior.encoder.model_dump() | {"pool": pool}})
    assert chosen.demos.views == ["mirrored"]
    assert features.run(paths, chosen, Watch()) == {"pictures": 150.0}
    assert artifacts.read_json(paths.metrics("features")) == {"pictures": 150.0}
    encoder = eyes.encoder(chosen.prior.encoder, demos.spec.cameras, paths.root)
    kept = np.load(paths.features / "image.npy")
    assert kept.shape == (150, encoder.features)
    assert kept.dtype == np.float32
    shown = np.asarray(demos.cameras["image"])
    for rows in (np.arange(75), np.array([3]), np.array([70, 2, 11])):
        assert np.array_equal(seen(encoder.train(), {"image": shown[rows]}), kept[rows])
    assert not np.array_equal(kept[75:], kept[:75]), "of mirror images"


def test_a_policy_is_trained_without_pictures_and_acts_on_them(
    paths: Paths, demos: Demonstrations, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = params(paths)
    for stage in (tokenizer, features):
        stage.run(paths, chosen, Watch())
    with monkeypatch.context() as patched:
        patched.setattr(store.frames.StoredFrames, "__getitem__", lambda frames, steps: pytest.fail("read a picture"))
        prior.run(paths, chosen, Watch())
    bundle.run(paths, chosen, Watch())
    policy, packed = policies.load(paths.policy)
    assert packed.provenance["params"]["prior"]["encoder"]["weights"] == chosen.prior.encoder.weights.model_dump()
    begun = bundles.read_tensors(paths.root / "weights.safetensors", "")[1]
    for name, value in begun.items():
        assert np.array_equal(packed.components["encoder"][f"eyes.0.trunk.{name}"], value)
    policy.reset(np.arange(2))
    shown = {"image": np.asarray(demos.cameras["image"])[:2]}
    joined = policy.see(demos.observation[:2], shown)
    assert np.array_equal(joined[:, 2:], np.load(paths.features / "image.npy")[:2])
    assert np.isfinite(policy.act(demos.observation[:2], np.arange(2), shown)).all()


def test_trained_on_features_or_on_pictures_the_weights_are_the_same(paths: Paths) -> None:
    chosen = params(paths)
    for stage in (tokenizer, features, prior):
        stage.run(paths, chosen, Watch())
    demos, packed = store.read(paths.store), bundles.read(paths.tokenizer)
    losses = []
    for cached in (None, lambda encoder, viewed: eyes.cached(paths, chosen.demos, encoder, viewed)):
        torch.manual_seed(0)
        frozen = tokenizer.Tokenizer.from_components(packed.arguments, packed.components)
        wanted = chosen.demos.views
        model, windows = prior.build(chosen.prior, frozen, demos, (), wanted=wanted, root=paths.root, cached=cached)
        torch.manual_seed(1)
        loss, _ = model.train().loss(windows.gather(np.arange(0, 150, 10)))
        loss.backward()
        assert all(value.grad is None for value in model.encoder.parameters())
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda paths: features.run(paths, params(paths, seed=1), Watch()),
            r"features are of encoder '[0-9a-f]{12}.* with '.*encode them again: dvc repro features@pusht_image",
        ),
        (
            lambda paths: features.run(paths, params(paths, views=[]), Watch()),
            r"features are of views \[\], and training is with \['mirrored'\]",
        ),
        (
            lambda paths: features.run(paths, params(paths, held_out=0.2), Watch()),
            r"features are of held_out 0\.2, and training is with 0\.0",
        ),
        (lambda paths: features.run(paths, shrunk(TASK), Watch()), "features are of encoder '', and training is with"),
        (
            lambda paths: np.save(paths.features / "image.npy", np.zeros((150, 128), np.float32)),
            r"image\.npy: was changed or is damaged: its sha256 is not the one in features\.json; encode them again",
        ),
        (
            lambda paths: (paths.features / "image.npy").unlink(),
            r"image\.npy: cannot be read as features: .*No such",
        ),
        (lambda paths: (paths.features / "features.json").unlink(), r"features\.json: .*"),
        (lambda paths: renumbered(paths), "features are of demonstrations '0000"),
    ],
)
def test_stale_features_are_refused(paths: Paths, change: object, message: str) -> None:
    chosen = params(paths)
    for stage in (tokenizer, features):
        stage.run(paths, chosen, Watch())
    change(paths)  # type: ignore[operator]
    chosen = params(paths)
    with pytest.raises(StoreError, match=message):
        prior.run(paths, chosen, Watch())


def renumbered(paths: Paths) -> None:
    file = paths.features / "features.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["of"]["demonstrations"] = "0" * 64
    file.write_text(json.dumps(content), encoding="utf-8")


def test_a_task_without_a_frozen_encoder_has_nothing_to_encode(paths: Paths) -> None:
    assert features.run(paths, shrunk(TASK), Watch()) == {"pictures": 0.0}
    assert [file.name for file in paths.features.iterdir()] == ["features.json"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "frozen, and no weights that it could keep"),
        ({"shift": 4, "weights": {"file": "w", "sha256": "0" * 64}}, "frozen, and shift 4: .*set shift to 0"),
    ],
)
def test_frozen_needs_weights_and_no_shift(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderParams.model_validate(SHAPE | changed)
