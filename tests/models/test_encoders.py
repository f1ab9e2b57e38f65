"""Encoders of pictures: crops, keypoints, what training draws, torchvision's weights, and the prior behind them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from tests.support import seeing
from vqbet.contract import BundleError, Camera, TrainingError
from vqbet.models.encoders import Encoder, EncoderShape, Eye, cropped
from vqbet.models.prior import Prior
from vqbet.models.resnet import GROUP, ResNet18

CAMERAS = (Camera("top", 48, 64), Camera("wrist", 40, 40))


def pictures(*lead: int, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return {camera.name: torch.from_numpy(rng.integers(0, 256, (*lead, *camera.shape), np.uint8)) for camera in CAMERAS}


@pytest.mark.parametrize("pool", ["spatial_softmax", "average"])
@pytest.mark.parametrize("kind", ["conv", "resnet18"])
def test_features_of_all_cameras_stand_in_their_order(kind: str, pool: str) -> None:
    torch.manual_seed(0)
    encoder = Encoder(CAMERAS, EncoderShape(kind=kind, features=5, crop=0.9, pool=pool, keypoints=7)).eval()
    shown = pictures(2, 3)
    found = encoder(shown)
    assert encoder.features == 10
    assert found.shape == (2, 3, 10)
    other = encoder({**shown, "wrist": 255 - shown["wrist"]})
    assert torch.equal(found[..., :5], other[..., :5])
    assert not torch.equal(found[..., 5:], other[..., 5:])


@pytest.mark.parametrize(("kind", "weights"), [("conv", 42_000), ("resnet18", 11_201_888)])
def test_the_number_of_weights_is_the_documented_one(kind: str, weights: int) -> None:
    encoder = Encoder([Camera("image", 96, 96)], EncoderShape(kind=kind, features=64, keypoints=32))
    assert sum(value.numel() for value in encoder.parameters()) == weights


def test_a_crop_is_that_part_of_the_picture_and_repeats_its_edge_outside() -> None:
    shown = torch.arange(6 * 8 * 3, dtype=torch.uint8).view(1, 1, 6, 8, 3).expand(2, 2, 6, 8, 3)
    found = cropped(shown, torch.tensor([[1, 2], [-1, 5]]), (4, 4))
    assert torch.equal(found[0, 1], shown[0, 0, 1:5, 2:6])
    padded = nn.functional.pad(shown[0, 0].permute(2, 0, 1).float(), (1, 1, 1, 1), mode="replicate")
    assert torch.equal(found[1, 0].float(), padded.permute(1, 2, 0)[0:4, 6:10])
    inside = cropped(shown[:1], torch.tensor([[1, 2]]), (4, 4))  # copied, not indexed
    assert torch.equal(inside, found[:1])


def test_pictures_of_a_window_move_together_in_training_and_not_at_all_in_acting() -> None:
    eye = Eye(CAMERAS[0], EncoderShape(crop=0.75, shift=3))
    corners = eye._corner(4000, torch.device("cpu"))
    assert corners.min(0).values.tolist() == [-3, -3]
    assert corners.max(0).values.tolist() == [12 + 3, 16 + 3]
    torch.testing.assert_close(corners.float().mean(0), torch.tensor([6.0, 8.0]), atol=0.5, rtol=0)
    assert eye.eval()._corner(2, torch.device("cpu")).tolist() == [[6, 8], [6, 8]]
    shown = pictures(1)["top"].expand(3, 48, 64, 3)[None]  # one window of three equal pictures
    encoded = eye.train()(shown)
    assert torch.equal(encoded[:, :1].expand_as(encoded), encoded)


def test_keypoints_are_where_things_are_whatever_was_cropped() -> None:
    """A heat map that is a peak at a pixel is at that pixel of the whole picture."""
    eye = Eye(CAMERAS[0], EncoderShape(crop=0.75, keypoints=1))
    for y, x in ((20, 30), (24, 40)):
        found = []
        for corner in ((3, 2), (12, 16)):
            heat = torch.full((1, 1, *eye.crop), -1e4)
            heat[0, 0, y - corner[0], x - corner[1]] = 0.0
            found.append(eye._positions(heat, torch.tensor([corner])))
        assert torch.equal(*found)
        assert found[0][0].tolist() == pytest.approx([(2 * y + 1) / 48 - 1, (2 * x + 1) / 64 - 1], abs=1e-6)


def test_a_picture_too_small_is_refused() -> None:
    with pytest.raises(
        TrainingError, match="camera 'wrist': expected 32 px or more on each side after the crop, got 2"
    ):
        Encoder(CAMERAS, EncoderShape(crop=0.7))


def test_it_survives_the_way_to_a_bundle_and_back() -> None:
    encoder = Encoder(CAMERAS, EncoderShape(features=4, crop=0.9)).eval()
    arguments = json.loads(json.dumps(encoder.arguments()))
    again = Encoder.from_components(arguments, encoder.components())
    assert torch.equal(again(pictures(2)), encoder(pictures(2)))
    with pytest.raises(BundleError, match="encoder: unknown tensor 'wing'"):
        Encoder.from_components(arguments, {**encoder.components(), "wing": np.zeros(1)})
    arguments["shape"]["wings"] = 2
    with pytest.raises(BundleError, match=r"encoder: arguments are not those of this version: .*wings"):
        Encoder.from_components(arguments, encoder.components())


# --- torchvision's ResNet-18 -----------------------------------------------------------------------------------------


class Folded(nn.Module):
    """BatchNorm with given statistics; GroupNorm in its place must receive what it gives before its affine part."""

    def __init__(self, name: str, values: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.mean, self.variance = values[f"{name}.running_mean"], values[f"{name}.running_var"]
        self.weight, self.bias = values[f"{name}.weight"], values[f"{name}.bias"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = nn.functional.batch_norm(x, self.mean, self.variance)
        return nn.functional.group_norm(before, x.shape[1] // GROUP, self.weight, self.bias)


def torchvision() -> dict[str, torch.Tensor]:
    """Return tensors of torchvision's names and shapes: convolutions have no bias, norms have statistics."""
    made: dict[str, torch.Tensor] = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    for name, module in ResNet18().named_modules():
        if isinstance(module, nn.Conv2d):
            made[f"{name}.weight"] = torch.randn_like(module.weight) / module.weight[0].numel() ** 0.5
        elif isinstance(module, nn.GroupNorm):
            made[f"{name}.weight"], made[f"{name}.bias"] = torch.rand_like(module.weight), torch.randn_like(module.bias)
            made[f"{name}.running_mean"] = torch.randn_like(module.bias)
            made[f"{name}.running_var"] = torch.rand_like(module.bias) + 0.1
            made[f"{name}.num_batches_tracked"] = torch.tensor(1)
    return made


def test_torchvisions_weights_and_statistics_are_taken_over() -> None:
    values = torchvision()
    assert len(values) == 122, "as many as torchvision's resnet18 has"
    net, reference = ResNet18().eval(), ResNet18().eval()
    net.load_torchvision(values)
    for name, module in list(reference.named_modules()):
        place, _, own = name.rpartition(".")
        if isinstance(module, nn.Conv2d):
            module.weight.data.copy_(values[f"{name}.weight"])
            module.bias.data.zero_()
        elif isinstance(module, nn.GroupNorm):
            setattr(reference.get_submodule(place), own, Folded(name, values))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(x), reference(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda values: values.pop("layer1.0.bn1.running_var"), "'layer1.0.bn1.running_var' is missing"),
        (lambda values: values.update(wing=torch.zeros(1)), r"unknown tensor 'wing' \(1 unknown in all\)"),
        (
            lambda values: values.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}),
            r"\(64, 3, 7, 7\), got torch.float32",
        ),
        (lambda values: values["bn1.bias"].fill_(torch.nan), "'bn1.bias': expected finite numbers"),
    ],
)
def test_other_weights_are_refused(fault: object, message: str) -> None:
    values = torchvision()
    fault(values)  # type: ignore[operator]
    with pytest.raises(TrainingError, match=message):
        ResNet18().load_torchvision(values)


# --- the prior that sees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("supervise", ["all", "last"])
def test_gradients_of_the_loss_reach_the_encoder(supervise: str) -> None:
    prior = seeing.prior(supervise=supervise)
    loss, _ = prior.train().loss(seeing.windows(4))
    loss.backward()
    assert all(float(eye.trunk[0].weight.grad.abs().sum()) > 0 for eye in prior.encoder.eyes)


@torch.no_grad()
def test_the_loss_sees_pictures_and_nothing_else_where_all_channels_are_unseen() -> None:
    prior, batch = seeing.prior(unseen=True).eval(), seeing.windows(4)
    before = prior.loss(batch)[1]["primary_loss"]
    assert torch.equal(prior.loss({**batch, "observation": batch["observation"] + 1})[1]["primary_loss"], before)
    darker = {**batch, "camera/top": batch["camera/top"] // 3}
    assert not torch.equal(prior.loss(darker)[1]["primary_loss"], before)


def test_a_seeing_prior_is_rebuilt_from_its_parts() -> None:
    prior = seeing.prior().eval()
    parts = prior.components()
    assert set(parts) == {"prior", "normalizer", "encoder"}
    arguments = json.loads(json.dumps(prior.arguments()))
    again = Prior.from_components(arguments, parts, tokenizer=prior.tokenizer)
    assert again.arguments() == prior.arguments()
    with torch.no_grad():
        batch = seeing.windows(2)
        assert torch.equal(again.loss(batch)[1]["primary_loss"], prior.loss(batch)[1]["primary_loss"])
