"""The min-max normaliser: round trips, constant channels, refusals, and that loading never fits again."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from vqbet.contract import BundleError, Channel, TrainingError
from vqbet.models.nets import restore, tensors
from vqbet.models.normalizer import Normalizer

NUMBERS = st.floats(-1e4, 1e4, width=32)


@given(arrays(np.float32, (7, 3), elements=NUMBERS))
def test_data_lands_in_minus_one_to_one_and_comes_back(data: np.ndarray) -> None:
    normalizer = Normalizer.fit(data)
    normalized = normalizer.normalize(torch.from_numpy(data))
    assert normalized.dtype == torch.float32
    assert normalized.abs().max() <= 1 + 1e-4
    scale = np.abs(data).max(axis=0) + 1e-30
    assert (np.abs(normalizer.unnormalize(normalized).numpy() - data) <= 1e-5 * scale).all()


def test_each_channel_has_its_own_range() -> None:
    normalizer = Normalizer.fit(np.array([[0, -5], [10, 5], [5, 0]], np.float32))
    expected = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(normalizer.normalize(torch.tensor([[0.0, -5.0], [10.0, 5.0], [5.0, 0.0]])), expected)
    torch.testing.assert_close(normalizer.half_range, torch.tensor([5.0, 5.0]))


@pytest.mark.parametrize("constant", [0.0, 3.0, -1e6])
def test_a_constant_channel_is_zero_whatever_comes_and_its_constant_on_the_way_back(constant: float) -> None:
    normalizer = Normalizer.fit(np.full((4, 1), constant, np.float32))
    assert normalizer.normalize(torch.tensor([[constant], [constant + 1e5]])).abs().max() == 0
    assert normalizer.unnormalize(torch.tensor([[0.7]])).item() == constant


def test_rounding_noise_around_a_large_constant_is_constant() -> None:
    noisy = np.array([[512.0], [np.nextafter(np.float32(512.0), np.float32(513.0))]], np.float32)
    assert Normalizer.fit(noisy).half_range.item() == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_data_that_is_not_finite_is_refused_by_channel(bad: float) -> None:
    data = np.zeros((5, 3), np.float32)
    data[2, 1] = bad
    with pytest.raises(TrainingError, match=r"channels \[1\]"):
        Normalizer.fit(data)


def test_no_data_is_refused() -> None:
    with pytest.raises(TrainingError, match="at least one step"):
        Normalizer.fit(np.zeros((0, 2), np.float32))


def test_statistics_are_tensors_of_the_module_and_are_restored_not_refitted() -> None:
    fitted = Normalizer.fit(np.array([[0, 1], [4, 9]], np.float32))
    loaded = Normalizer(2)
    restore(loaded, tensors(fitted), component="normalizer")
    assert torch.equal(loaded.low, fitted.low)
    assert torch.equal(loaded.high, fitted.high)
    assert [name for name, _ in loaded.named_parameters()] == []  # nothing for an optimiser to move


def test_what_follows_from_the_statistics_follows_them_however_they_come() -> None:
    fitted = Normalizer.fit(np.array([[0, 1, 7], [4, 9, 7]], np.float32))
    restored, loaded, copied = Normalizer(3), Normalizer(3), copy.deepcopy(fitted)
    restore(restored, tensors(fitted), component="normalizer")
    nn.Sequential(loaded).load_state_dict(nn.Sequential(fitted).state_dict())
    copied.load_state_dict(Normalizer.fit(np.array([[0, 0, 0], [1, 1, 1]], np.float32)).state_dict())
    assert fitted.half_range.tolist() == [2, 4, 0]  # a copy that is loaded leaves the original alone
    assert copied.half_range.tolist() == [0.5, 0.5, 0.5]
    for other in (restored, loaded):
        assert all(torch.equal(value, other.get_buffer(name)) for name, value in fitted.named_buffers())
    assert set(tensors(fitted)) == {"low", "high"}


def test_statistics_of_another_size_are_refused_by_name() -> None:
    with pytest.raises(BundleError, match=r"normalizer: tensor 'low': expected .*\(3,\), got .*\(2,\)"):
        restore(Normalizer(3), tensors(Normalizer(2)), component="normalizer")


def test_a_channel_that_only_shows_noise_counts_as_constant() -> None:
    """Stretched to [-1, 1], the first motion of a knob that nobody turned would be a thousand times anything seen."""
    channels = [Channel(name, "rad", -1.0, 1.0) for name in ("moved", "still")]
    data = np.stack([np.linspace(-0.5, 0.5, 50), np.linspace(-1e-4, 1e-4, 50)], axis=1).astype(np.float32)
    normalizer = Normalizer.fit(data, channels)
    assert normalizer.half_range.tolist() == [0.5, 0.0]
    assert normalizer.normalize(torch.tensor([0.5, 0.9])).tolist() == [1.0, 0.0]
    assert Normalizer.fit(data).half_range[1] > 0


def test_a_channel_that_is_not_looked_at_counts_as_constant() -> None:
    channels = [Channel(name, "m", -1.0, 1.0) for name in ("x", "x_velocity")]
    data = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    normalizer = Normalizer.fit(data, channels, unseen=["*_velocity"])
    assert (normalizer.half_range > 0).tolist() == [True, False]
    with pytest.raises(TrainingError, match=r"unseen: '\*_speed' fits no observed channel; there are x, x_v"):
        Normalizer.fit(data, channels, unseen=["*_speed"])
