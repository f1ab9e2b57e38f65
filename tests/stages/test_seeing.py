"""Push-T through its camera, through the stages: from a store with pictures to a policy that is played."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import seeing_pusht
from tests.support.shrunk import PARAMS, shrunk
from vqbet import config, policies
from vqbet.contract import ConfigError, Demonstrations
from vqbet.demos import store
from vqbet.stages import artifacts, bundle, evaluate, preflight, prior, tokenizer
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

TASK = "pusht_image"


@pytest.fixture(scope="module")
def demos() -> Demonstrations:
    return seeing_pusht.demonstrations()


@pytest.mark.slow
def test_a_policy_is_trained_on_pictures_packed_and_played(tmp_path: Path, demos: Demonstrations) -> None:
    paths, params = Paths(tmp_path, TASK), shrunk(TASK)
    assert params.demos.views == ["mirrored"]
    store.write(paths.store, demos)
    for stage in (tokenizer, prior, bundle, evaluate):
        stage.run(paths, params, Watch())
    policy, packed = policies.load(paths.policy)
    assert set(packed.components) == {"tokenizer", "prior", "normalizer", "encoder", "guard"}
    assert packed.spec.cameras == demos.spec.cameras
    assert packed.provenance["params"]["prior"]["encoder"] == params.prior.encoder.model_dump(mode="json")
    assert artifacts.read_json(paths.metrics("evaluate"))["episodes"] == 3
    policy.reset(np.arange(2))
    shown = {"image": np.asarray(demos.cameras["image"])[:2]}
    assert np.isfinite(policy.act(demos.observation[:2], np.arange(2), shown)).all()
    before = packed.digest
    bundle.run(paths, params, Watch())
    assert policies.load(paths.policy)[1].digest == before, "equal inputs, equal bytes"


@pytest.mark.parametrize(
    ("seeing", "encoder", "message"),
    [
        (True, None, r"pusht_image\.prior\.encoder: expected one for the cameras of the demonstrations \(image\)"),
        (False, {}, r"pusht_image\.prior\.encoder: expected none, since the demonstrations have no cameras; remove"),
        (True, {"crop": 0.3}, r"pusht_image\.prior\.encoder\.crop: 0\.3 of camera 'image', 96 x 96, are 29 px, and 32"),
    ],
)
def test_cameras_and_encoder_come_together(
    tmp_path: Path, demos: Demonstrations, seeing: bool, encoder: dict[str, float] | None, message: str
) -> None:
    paths, shipped = Paths(tmp_path, TASK), config.task(PARAMS, TASK).prior.encoder
    params = shrunk(TASK, prior={"encoder": encoder if encoder is None else {**shipped.model_dump(), **encoder}})
    blind = replace(demos, spec=replace(demos.spec, cameras=()), cameras={})
    store.write(paths.store, demos if seeing else blind)
    tokenizer.run(paths, params, Watch())
    with pytest.raises(ConfigError, match=message):
        prior.run(paths, params, Watch())
    assert [str(error) for error in preflight.wrong(paths, params) if "encoder" in str(error)]


def test_weights_that_are_not_there_are_said_before_anything_is_trained(tmp_path: Path, demos: Demonstrations) -> None:
    paths, shipped = Paths(tmp_path, TASK), config.task(PARAMS, TASK).prior.encoder
    absent = {"file": "weights/r18.safetensors", "sha256": "0" * 64}
    params = shrunk(TASK, prior={"encoder": {**shipped.model_dump(), "weights": absent}})
    store.write(paths.store, demos)
    wanted = r"pusht_image\.prior\.encoder\.weights\.file: .*/weights/r18\.safetensors: is missing; copy the file there"
    assert [error for error in preflight.wrong(paths, params) if re.match(wanted, str(error))]
    tokenizer.run(paths, params, Watch())
    with pytest.raises(ConfigError, match=wanted):
        prior.run(paths, params, Watch())
