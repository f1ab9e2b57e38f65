"""`vqbet weights`: weights of an image network, from a file that the user has, for `prior.encoder.weights`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from vqbet import bundle
from vqbet.contract import BundleError, ConfigError, TrainingError
from vqbet.models.encoders import TRUNKS, Kind
from vqbet.models.nets import restore, tensors
from vqbet.models.resnet import ResNet18

MEND = "give a safetensors file of torchvision's resnet18, or encoder.safetensors of a policy's bundle"
OWN = "eyes.0.trunk."  # names of the first camera's network in a bundle
PICKLES = (b"PK\x03\x04", b"\x80")  # how files of torch.save begin, now and before PyTorch 1.6
AS_SAFETENSORS = (
    'import torch; from safetensors.torch import save_file; save_file(torch.load("{name}", weights_only=True), '
    '"{stem}.safetensors")'
)


def run(source: Path, out: Path, root: Path) -> dict[str, str]:
    """Convert `source` to `out`, and return a summary whose last entry is the line for params.yaml.

    source: torchvision's resnet18 (`ResNet18.load_torchvision` says what becomes of BatchNorm), or the component
    "encoder" of a bundle, of which the first camera's network is taken. root: the project. Nothing is downloaded or
    unpickled. Raises ConfigError, BundleError or TrainingError naming the file and the tensor.
    """
    _refuse_pickle(source)
    _, values = bundle.read_tensors(source, MEND)
    kind, converted = _converted(source, values)
    sha256 = bundle.write_tensors(out, converted)
    place = out.resolve()
    file = place.relative_to(root) if place.is_relative_to(root) else place
    return {
        "network": f"{kind}, {sum(value.size for value in converted.values()) / 1e6:.1f} M weights",
        "file": f"{out}",
        "encoder": f"{{kind: {kind}, weights: {{file: {file}, sha256: {sha256}}}}}",
    }


def _converted(source: Path, values: Mapping[str, np.ndarray]) -> tuple[Kind, dict[str, np.ndarray]]:
    own = {name.removeprefix(OWN): value for name, value in values.items() if name.startswith(OWN)}
    kind: Kind = "resnet18" if not own or "conv1.weight" in own else "conv"
    network = TRUNKS[kind]()
    try:
        if own or not isinstance(network, ResNet18):
            restore(network, own, component="encoder")
        else:
            network.load_torchvision({name: torch.from_numpy(value) for name, value in values.items()})
    except (TrainingError, BundleError) as error:
        raise type(error)(f"{source}: {error}; {MEND}") from error
    return kind, tensors(network)


def _refuse_pickle(source: Path) -> None:
    """Raise ConfigError for a file of torch.save, which only a pickle's reader opens."""
    try:
        with source.open("rb") as file:
            first = file.read(4)
    except OSError:
        return  # its reader says so
    if first.startswith(PICKLES):
        raise ConfigError(
            f"{source}: is a pickle, which can run code, and nothing is unpickled here; where you trust it, save it as "
            f"safetensors elsewhere: python -c '{AS_SAFETENSORS.format(name=source.name, stem=source.stem)}'"
        )
