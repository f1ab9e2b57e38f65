"""Encoders of pictures: one trunk per camera, from uint8 pictures to numbers that stand behind an observation.

Scaling, random crop and shift, and the centre crop of acting are part of the model, so pictures travel as uint8.
Spatial softmax is of Levine et al. 2016 (arXiv 1504.00702), random shifts are of DrQ (arXiv 2004.13649).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, final

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from vqbet.contract import BundleError, Camera, TrainingError
from vqbet.files import canonical
from vqbet.models.nets import restore, tensors
from vqbet.models.resnet import GROUP, ResNet18

Kind = Literal["conv", "resnet18"]
Pool = Literal["spatial_softmax", "average"]
TOGETHER = 2  # pictures that are encoded in one call: torch has no fast convolution for one
GOAL = "goal/"  # beginning of the names of a batch's pictures of goals
LEAST_PX = 32  # of a picture's sides after the crop: ResNet-18 halves them five times


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """Dimensions of the encoder of each camera, and its augmentation.

    features: numbers for each picture. crop: share of each side that is kept, at a random place in training, in the
    middle when acting. shift: pixels by which the crop is moved beyond that in training, at most; pixels outside of the
    picture repeat its edge. pool: "spatial_softmax" (the mean position of each of `keypoints` heat maps) or "average".
    frozen: the trunk is not trained, sees the middle of a picture always, and has no layer of features behind it: there
    is a feature for each average of its maps, two for each map's position; `features` and `keypoints` are not read.
    """

    kind: Kind = "conv"
    features: int = 64
    crop: float = 1.0
    shift: int = 0
    pool: Pool = "spatial_softmax"
    keypoints: int = 32
    frozen: bool = False


@final
class Conv(nn.Sequential):
    """Four convolutions with GroupNorm, which halve the sides three times: 0.04 M weights.

    A picture of 86 x 86 costs 5 M multiply-adds, and 0.4 ms on one core with its gradient. Twice the channels learn
    Push-T's pose no better from the same pictures, and take three times as long.
    """

    channels = 64
    statistics = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # -1..1
    SIZES = ((3, 16, 8, 4, 2), (16, 32, 3, 2, 1), (32, 32, 3, 1, 1), (32, channels, 3, 1, 1))  # in, out, then of Conv2d

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs, kernel, stride, padding in self.SIZES:
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding)
            layers += [convolution, nn.GroupNorm(outputs // GROUP, outputs), nn.ReLU(inplace=True)]
        super().__init__(*layers)


TRUNKS: Mapping[Kind, type[Conv | ResNet18]] = {"conv": Conv, "resnet18": ResNet18}


@final
class Encoder(nn.Module):
    """Pictures of all cameras of a step -> F numbers, equally many for each camera, in the cameras' order.

    Raises TrainingError where a picture is too small for the crop.
    """

    def __init__(self, cameras: Sequence[Camera], shape: EncoderShape) -> None:
        super().__init__()
        self.cameras, self.shape = tuple(cameras), shape
        self.eyes = nn.ModuleList(Eye(camera, shape) for camera in self.cameras)
        self.features = sum(cast(Eye, eye).features for eye in self.eyes)
        if shape.frozen:
            self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Encoder:
        return super().train(mode and not self.shape.frozen)

    def forward(self, pictures: Mapping[str, UInt8[Tensor, "*B height width 3"]]) -> Float[Tensor, "*B F"]:
        """Return the features of pictures, by the names of their cameras.

        In training mode crop and shift are drawn from torch's global generator, once for each entry of the first
        dimension and each camera: all pictures of a window move together.
        """
        return torch.cat([eye(pictures[camera.name]) for camera, eye in zip(self.cameras, self.eyes, strict=True)], -1)

    def of(self, batch: Mapping[str, Any], device: torch.device, whose: str = "") -> Float[Tensor, "B T F"]:
        """Return the features of a batch of `Windows`: "camera/<name>" (B, T, height, width, 3), uint8.

        whose: beginning of the names, GOAL for the pictures of goals.

        Where the encoder is frozen, the entry may be its features, float32 (B, T, F of the camera), instead.
        """
        names = [camera.name for camera in self.cameras]
        named = {name: torch.as_tensor(batch[f"{whose}camera/{name}"]).to(device) for name in names}
        if self.shape.frozen and all(each.is_floating_point() for each in named.values()):
            return torch.cat(list(named.values()), -1)
        return self(named)

    def begin(self, values: Mapping[str, np.ndarray], *, where: str) -> None:
        """Load one trunk's tensors into the trunks of all cameras. Raises BundleError naming `where` and the tensor."""
        for eye in self.eyes:
            restore(cast(Eye, eye).trunk, values, component=where)

    def digest(self) -> str:
        """Return the sha256 of arguments and tensors, which decide the features of every picture."""
        total = hashlib.sha256(canonical.digest(self.arguments()).encode())
        for name, value in sorted(self.components().items()):
            total.update(name.encode() + np.ascontiguousarray(value).tobytes())
        return total.hexdigest()

    def arguments(self) -> dict[str, Any]:
        """Return the `arguments` of `from_components`; JSON-clean."""
        return {"cameras": [asdict(camera) for camera in self.cameras], "shape": asdict(self.shape)}

    def components(self) -> dict[str, np.ndarray]:
        """Return the tensors of the component "encoder"."""
        return tensors(self)

    @classmethod
    def from_components(cls, arguments: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> Encoder:
        """Return the exact encoder of `arguments` and `components`. Raises BundleError where they do not fit."""
        try:
            cameras = [Camera(**camera) for camera in arguments["cameras"]]
            encoder = cls(cameras, EncoderShape(**arguments["shape"]))
        except (KeyError, TypeError, ValueError, TrainingError) as error:
            raise BundleError(f"encoder: arguments are not those of this version: {error}") from error
        restore(encoder, values, component="encoder")
        return encoder.eval()


class Eye(nn.Module):
    """Encoder of one camera: scaling, crop, trunk, pooling, and, unless it is frozen, a linear layer with ReLU.

    Positions of keypoints are those in the whole picture, -1..1 from edge to edge, wherever the crop was: a crop
    changes what is seen, and not where things are.
    """

    factor: Float[Tensor, " 3"]
    offset: Float[Tensor, " 3"]

    def __init__(self, camera: Camera, shape: EncoderShape) -> None:
        super().__init__()
        self.size = (camera.height, camera.width)
        self.crop = (round(camera.height * shape.crop), round(camera.width * shape.crop))
        if min(self.crop) < LEAST_PX or shape.crop > 1:
            raise TrainingError(
                f"camera {camera.name!r}: expected {LEAST_PX} px or more on each side after the crop, got "
                f"{self.crop[0]} x {self.crop[1]} of {camera.height} x {camera.width}; crop less, or use larger ones"
            )
        self.shift = shape.shift
        self.trunk = TRUNKS[shape.kind]()
        channels, (mean, std) = self.trunk.channels, self.trunk.statistics
        self.placed = shape.pool == "spatial_softmax"
        maps = shape.keypoints if self.placed and not shape.frozen else channels
        pooled = 2 * maps if self.placed else maps
        self.features = pooled if shape.frozen else shape.features
        self.heat = nn.Conv2d(channels, maps, 1) if self.placed and not shape.frozen else None
        self.out = None if shape.frozen else nn.Linear(pooled, shape.features)
        self.register_buffer("factor", 1 / (255 * torch.tensor(std)), persistent=False)
        self.register_buffer("offset", -torch.tensor(mean) / torch.tensor(std), persistent=False)

    def forward(self, pictures: UInt8[Tensor, "*B height width 3"]) -> Float[Tensor, "*B F"]:
        lead = pictures.shape[:-3]
        each = pictures.reshape(lead[0], -1, *pictures.shape[-3:])  # (B, T, height, width, 3)
        corner = self._corner(each.shape[0], each.device)  # `len` would fix the batch of an exported graph
        seen = (cropped(each, corner, self.crop) if self.training else self._middle(each)).flatten(0, 1)
        scaled = torch.addcmul(self.offset, seen.to(self.factor.dtype), self.factor)  # (M, h, w, 3), M = B T
        maps = self.trunk(scaled.permute(0, 3, 1, 2))  # its channels are last in memory, which is faster on CPUs
        if self.heat is not None:
            maps = self.heat(maps)
        corners = corner.repeat_interleave(each.shape[1], 0)
        pooled = self._positions(maps, corners) if self.placed else maps.mean((2, 3))
        return (pooled if self.out is None else self.out(pooled).relu()).view(*lead, -1)

    def _middle(self, pictures: UInt8[Tensor, "B T height width 3"]) -> UInt8[Tensor, "B T h w 3"]:
        top, left = ((whole - kept) // 2 for whole, kept in zip(self.size, self.crop, strict=True))
        return pictures[:, :, top : top + self.crop[0], left : left + self.crop[1]]

    def _corner(self, count: int, device: torch.device) -> Int[Tensor, "B 2"]:
        """Return the upper left corner of each crop, in px of the picture: random in training, else that of the middle.

        A corner can lie outside of the picture by `shift`.
        """
        room = torch.tensor([whole - kept for whole, kept in zip(self.size, self.crop, strict=True)], device=device)
        if not self.training:
            return (room // 2).expand(count, 2)
        drawn = torch.rand(count, 2, device=device) * (room + 2 * self.shift + 1)
        return drawn.long() - self.shift

    def _positions(self, heat: Float[Tensor, "M K h w"], corner: Int[Tensor, "M 2"]) -> Float[Tensor, "M 2K"]:
        """Return the mean position of each heat map, y of all and then x of all, in -1..1 of the whole picture."""
        share = heat.flatten(2).softmax(2).view(heat.shape)
        found = []
        for axis, (sums, whole, kept) in enumerate(zip((3, 2), self.size, self.crop, strict=True)):
            cells = heat.shape[2 + axis]
            middle = (torch.arange(cells, device=heat.device) + 0.5) * (kept / cells)  # px from the crop's corner
            place = share.sum(sums) @ middle.to(heat.dtype) + corner[:, axis : axis + 1]
            found.append(place * (2 / whole) - 1)
        return torch.cat(found, 1)


def cropped(
    pictures: UInt8[Tensor, "B T height width 3"], corner: Int[Tensor, "B 2"], size: tuple[int, int]
) -> UInt8[Tensor, "B T h w 3"]:
    """Return the part of this size at each corner (y, x); outside of a picture its edge is repeated."""
    height, width = pictures.shape[2:4]
    if pictures.device.type == "cpu":  # a copy per window is ten times as fast as indices of every pixel
        corners = corner.tolist()
        if all(0 <= y <= height - size[0] and 0 <= x <= width - size[1] for y, x in corners):
            parts = zip(pictures, corners, strict=True)
            return torch.stack([each[:, y : y + size[0], x : x + size[1]] for each, (y, x) in parts])
    batch, frames = (torch.arange(count, device=pictures.device) for count in pictures.shape[:2])
    y, x = (
        (corner[:, axis, None] + torch.arange(size[axis], device=pictures.device)).clamp(0, most - 1)
        for axis, most in ((0, height), (1, width))
    )  # (B, h), (B, w)
    return pictures[batch[:, None, None, None], frames[None, :, None, None], y[:, None, :, None], x[:, None, None, :]]


def seen(
    encoder: Encoder | None, pictures: Mapping[str, UInt8[np.ndarray, "B height width 3"]]
) -> Float[np.ndarray, "B F"]:
    """Return the features of pictures, by the names of their cameras.

    Convolutions round differently for other batches. So TOGETHER pictures are encoded at a time, the last ones repeated
    where some are missing, and the features of a picture do not depend on the number of others.
    """
    assert encoder is not None, "an actor shows pictures to planners with cameras only"
    count = len(next(iter(pictures.values())))
    found = np.zeros((count, encoder.features), np.float32)
    with torch.inference_mode():
        for first in range(0, count, TOGETHER):
            rows = np.minimum(np.arange(first, first + TOGETHER), count - 1)
            encoded = encoder({name: torch.from_numpy(each[rows]) for name, each in pictures.items()})
            found[first : first + TOGETHER] = encoded[: count - first].numpy()
    return found
