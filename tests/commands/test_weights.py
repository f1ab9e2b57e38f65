"""`vqbet weights`: from torchvision's file to an encoder that begins with it, and every file that is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.models.test_encoders import torchvision
from vqbet import bundle
from vqbet.commands import weights
from vqbet.config import EncoderParams
from vqbet.contract import BundleError, Camera, ConfigError, TrainingError
from vqbet.models.encoders import Conv, Encoder, EncoderShape
from vqbet.models.resnet import ResNet18
from vqbet.stages import eyes

CAMERAS = (Camera("top", 40, 48), Camera("wrist", 36, 36))
SHAPE = {"kind": "resnet18", "features": 4, "crop": 0.9, "shift": 0, "pool": "average", "keypoints": 1}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "resnet18.safetensors"
    save_file(torchvision(), path, metadata={"format": "pt"})
    return path


def params(file: str, sha256: str, **changed: object) -> EncoderParams:
    return EncoderParams.model_validate(SHAPE | {"weights": {"file": file, "sha256": sha256}} | changed)


def test_an_encoder_begins_with_torchvisions_weights(tmp_path: Path, source: Path) -> None:
    shown = weights.run(source, tmp_path / "weights" / "r18.safetensors", tmp_path)
    sha256, values = bundle.read_tensors(tmp_path / "weights" / "r18.safetensors", "")
    assert shown["network"] == "resnet18, 11.2 M weights"
    assert shown["encoder"] == f"{{kind: resnet18, weights: {{file: weights/r18.safetensors, sha256: {sha256}}}}}"
    expected = ResNet18()
    expected.load_torchvision(torchvision_of(source))
    made = eyes.encoder(params("weights/r18.safetensors", sha256), CAMERAS, tmp_path)
    for eye in made.eyes:
        for name, value in expected.state_dict().items():
            assert torch.equal(eye.trunk.state_dict()[name], value)
    assert values.keys() == expected.state_dict().keys()


def torchvision_of(path: Path) -> dict[str, torch.Tensor]:
    _, values = bundle.read_tensors(path, "")
    return {name: torch.from_numpy(value) for name, value in values.items()}


def test_equal_files_make_equal_bytes(tmp_path: Path, source: Path) -> None:
    made = [weights.run(source, tmp_path / name, tmp_path)["encoder"][-66:] for name in ("one", "two")]
    assert made[0] == made[1]


def test_the_encoder_of_a_bundle_is_taken_over(tmp_path: Path) -> None:
    trained = Encoder(CAMERAS, EncoderShape(kind="conv", features=4))
    source = tmp_path / "encoder.safetensors"
    bundle.write_tensors(source, trained.components())
    sha256 = weights.run(source, tmp_path / "conv.safetensors", tmp_path)["encoder"].split("sha256: ")[1][:64]
    made = eyes.encoder(params("conv.safetensors", sha256, kind="conv"), CAMERAS, tmp_path)
    for eye in made.eyes:
        assert isinstance(eye.trunk, Conv)
        assert torch.equal(eye.trunk[0].weight, trained.eyes[0].trunk[0].weight)


def pickled(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")


@pytest.mark.parametrize(
    ("plant", "error", "message"),
    [
        (pickled, ConfigError, r"w\.pth: is a pickle, .*nothing is unpickled.*save_file\(torch\.load\(\"w\.pth\""),
        (lambda path: path.write_bytes(b"\x80\x02}q\x00."), ConfigError, "is a pickle"),
        (lambda path: path.write_bytes(b"\xff" * 99), BundleError, r"w\.pth: header of .*torchvision's resnet18"),
        (lambda path: None, BundleError, r"w\.pth: is missing; give a safetensors file"),
        (
            lambda path: save_file(torchvision() | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, path),
            TrainingError,
            r"w\.pth: weights: tensor 'conv1\.weight'",
        ),
        (
            lambda path: save_file({"eyes.0.trunk.conv1.weight": torch.zeros(1)}, path),
            BundleError,
            r"w\.pth: encoder: tensor .* is missing",
        ),
    ],
)
def test_other_files_are_refused_and_nothing_is_written(
    tmp_path: Path, plant: object, error: type[Exception], message: str
) -> None:
    plant(tmp_path / "w.pth")  # type: ignore[operator]
    with pytest.raises(error, match=message):
        weights.run(tmp_path / "w.pth", tmp_path / "out.safetensors", tmp_path)
    assert not (tmp_path / "out.safetensors").exists()


def test_missing_swapped_and_foreign_weights_are_refused(tmp_path: Path, source: Path) -> None:
    shown = weights.run(source, tmp_path / "r18.safetensors", tmp_path)
    sha256 = shown["encoder"].split("sha256: ")[1][:64]
    with pytest.raises(ConfigError, match=r"encoder\.weights\.file: .*gone\.safetensors: is missing; copy the file"):
        eyes.encoder(params("gone.safetensors", sha256), CAMERAS, tmp_path)
    with pytest.raises(ConfigError, match=r"encoder\.weights\.sha256: expected 0+, and .*r18\.safetensors has"):
        eyes.encoder(params("r18.safetensors", "0" * 64), CAMERAS, tmp_path)
    with pytest.raises(ConfigError, match=r"r18\.safetensors: tensor '0\.bias' is missing .*; expected .*kind 'conv'"):
        eyes.encoder(params("r18.safetensors", sha256, kind="conv"), CAMERAS, tmp_path)
    other = {name: np.zeros((2, *value.shape), np.float32) for name, value in ResNet18().state_dict().items()}
    sha256 = bundle.write_tensors(tmp_path / "other.safetensors", other)
    with pytest.raises(ConfigError, match=r"other\.safetensors: tensor 'conv1\.weight': expected torch\.float32 \(64,"):
        eyes.encoder(params("other.safetensors", sha256), CAMERAS, tmp_path)
