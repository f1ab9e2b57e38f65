"""The quantisers: parity with independent ones, k-means, moving averages, dead codes, levels, gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from vector_quantize_pytorch import FSQ, ResidualVQ

from tests.support.examples import up_to
from vqbet.models.quantizers import (
    QUANTIZERS,
    KMeansQuantizer,
    ResidualQuantizer,
    ScalarQuantizer,
    Wanted,
    kmeans,
)


def wanted(layers: int, codes: int) -> Wanted:
    return Wanted(layers=layers, codes=codes, latent=5, size=6, decay=0.9, revive_below=0.0)


# --- residual VQ against lucidrains' vector-quantize-pytorch ---------------------------------------------------------


def pair(layers: int = 3, decay: float = 0.8) -> tuple[ResidualQuantizer, ResidualVQ]:
    """Ours and the peer's, with the same random codebooks and counts."""
    torch.manual_seed(3)
    ours = ResidualQuantizer(layers=layers, codes=6, latent=5, decay=decay, revive_below=0.0)
    peer = ResidualVQ(dim=5, num_quantizers=layers, codebook_size=6, decay=decay, threshold_ema_dead_code=0)
    ours.codebooks.copy_(torch.randn(layers, 6, 5) / 2 ** torch.arange(layers)[:, None, None])
    ours.mass.copy_(ours.codebooks * ours.usage[:, :, None])
    for layer, book in enumerate(peer.layers):
        book._codebook.embed.data.copy_(ours.codebooks[layer])
        book._codebook.embed_avg.data.copy_(ours.mass[layer] * 64)
        book._codebook.cluster_size.data.copy_(ours.usage[layer] * 64)
    return ours, peer


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_parity_of_codes_quantised_vectors_and_commitment(layers: int) -> None:
    ours, peer = pair(layers)
    latent = torch.randn(64, 5)
    quantised, indices, _ = peer.eval()(latent)
    straight, codes, commitment = ours.eval()(latent)
    assert torch.equal(codes, indices)
    assert torch.equal(ours.encode(latent), codes)
    torch.testing.assert_close(ours.decode(codes), quantised)
    torch.testing.assert_close(straight, quantised)
    torch.testing.assert_close(commitment, peer.train()(latent, freeze_codebook=True)[2].sum())


def test_parity_of_the_moving_averages() -> None:
    """Where no code is empty the peer's Laplace smoothing (1e-5) is all that differs."""
    ours, peer = pair()
    peer.train()
    for _ in range(5):
        latent = torch.randn(64, 5)
        ours.train()(latent)
        peer(latent)
        for layer, book in enumerate(peer.layers):
            torch.testing.assert_close(ours.usage[layer] * 64, book._codebook.cluster_size[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(ours.codebooks[layer], book._codebook.embed[0], rtol=1e-3, atol=1e-3)


# --- codebooks by moving averages ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_first_update_leaves_an_unused_code_where_it_is() -> None:
    """Counts that start at zero beside sums that do not throw unused codes far away (0.6 in the notes on upstream)."""
    ours, _ = pair()
    before = ours.codebooks.clone()
    residuals = torch.randn(3, 64, 5)
    ours.update(list(residuals), torch.zeros(64, 3, dtype=torch.int64))
    torch.testing.assert_close(ours.codebooks[:, 1:], before[:, 1:])
    assert not torch.allclose(ours.codebooks[:, 0], before[:, 0])
    for _ in range(2000):
        ours.update(list(residuals), torch.zeros(64, 3, dtype=torch.int64))
    assert torch.isfinite(ours.codebooks).all()
    assert ours.codebooks[:, 1:].norm(dim=-1).min() > 0.01  # nor do they collapse to zero


def test_a_code_converges_to_the_mean_of_what_it_gets() -> None:
    ours = ResidualQuantizer(layers=1, codes=2, latent=3, decay=0.9, revive_below=0.0)
    points = torch.randn(50, 3)
    for _ in range(200):
        ours.update([points], torch.zeros(50, 1, dtype=torch.int64))
    torch.testing.assert_close(ours.codebooks[0, 0], points.mean(0), rtol=1e-4, atol=1e-4)
    assert ours.usage[0, 0].item() == pytest.approx(1.0, abs=1e-4)


def test_dead_codes_are_revived_at_residuals_of_the_batch() -> None:
    torch.manual_seed(0)
    ours = ResidualQuantizer(layers=2, codes=8, latent=4, decay=0.5, revive_below=1.0)
    residuals = torch.randn(2, 32, 4)
    for _ in range(4):  # 32 / 8 vectors a batch at first, half of that after each step
        ours.update(list(residuals), torch.zeros(32, 2, dtype=torch.int64))
    for layer in range(2):
        apart = (ours.codebooks[layer, 1:, None] - residuals[layer]).abs().amax(2)
        assert apart.min(1).values.max() < 1e-5


@up_to(20)
@given(st.integers(1, 4), st.integers(2, 9), st.integers(1, 6), st.integers(0, 1000), st.sampled_from(["ema", "bins"]))
def test_every_layer_brings_quantised_vectors_nearer(
    layers: int, codes: int, latent: int, seed: int, kind: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(200, latent, generator=generator)
    ours = (
        ResidualQuantizer(layers=layers, codes=codes, latent=latent, decay=0.9, revive_below=0.0)
        if kind == "ema"
        else KMeansQuantizer(layers=layers, codes=codes, size=latent)
    )
    ours.initialise(data, generator)
    chosen = ours.encode(data)
    assert chosen.shape == (200, layers)
    assert 0 <= chosen.min() <= chosen.max() < codes
    partial = [KMeansQuantizer(layers=count, codes=codes, size=latent) for count in range(1, layers + 1)]
    for count, first in enumerate(partial, 1):
        first.codebooks.copy_(ours.codebooks[:count])
    sizes = [data.norm(), *((data - first.decode(first.encode(data))).norm() for first in partial)]
    assert all(later <= earlier + 1e-4 for earlier, later in itertools.pairwise(sizes))
    if kind == "ema":
        torch.testing.assert_close(ours.usage.sum(1), torch.ones(layers))


# --- k-means ---------------------------------------------------------------------------------------------------------


def test_kmeans_finds_separate_clusters_and_counts_them_and_repeats_itself() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = torch.cat([c + 0.1 * torch.randn(n, 2) for c, n in zip(centres, (50, 30, 20), strict=True)])
    found, counts = kmeans(points, 3, torch.Generator().manual_seed(1))
    assert sorted(counts.tolist()) == [20, 30, 50]
    assert torch.cdist(centres, found).min(1).values.max() < 0.2
    again, _ = kmeans(points, 3, torch.Generator().manual_seed(1))
    assert torch.equal(found, again)


def test_kmeans_with_fewer_points_than_centres_stays_finite() -> None:
    found, counts = kmeans(torch.ones(3, 2), 5, torch.Generator().manual_seed(0))
    assert torch.isfinite(found).all()
    assert counts.sum() == 3


@up_to(20)
@given(st.integers(20, 150), st.integers(2, 12), st.integers(1, 6), st.integers(0, 1000))
def test_a_bin_is_the_mean_of_its_members_in_every_layer(count: int, codes: int, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(count, size, generator=generator)
    bins = KMeansQuantizer(layers=2, codes=codes, size=size)
    bins.initialise(data, generator)
    chosen, residual = bins.encode(data), data
    for layer in range(2):
        for code in chosen[:, layer].unique():
            members = residual[chosen[:, layer] == code]
            torch.testing.assert_close(bins.codebooks[layer, code], members.mean(0), rtol=1e-4, atol=1e-4)
        residual = residual - bins.codebooks[layer, chosen[:, layer]]


def test_as_many_bins_as_distinct_points_keep_every_point() -> None:
    points = torch.randn(7, 4)
    bins = KMeansQuantizer(layers=1, codes=7, size=4)
    bins.initialise(points.repeat(5, 1), torch.Generator().manual_seed(0))
    torch.testing.assert_close(bins.decode(bins.encode(points)), points)


def error(layers: int, codes: int) -> float:
    data = torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
    bins = KMeansQuantizer(layers=layers, codes=codes, size=6)
    bins.initialise(data, torch.Generator().manual_seed(0))
    return float((data - bins.decode(bins.encode(data))).square().mean())


def test_more_bins_and_more_layers_lose_less() -> None:
    by_codes = [error(1, codes) for codes in (2, 4, 8, 16, 32, 64)]
    by_layers = [error(layers, 8) for layers in (1, 2, 3, 4)]
    for errors in (by_codes, by_layers):
        assert all(later < 0.95 * earlier for earlier, later in itertools.pairwise(errors))
    assert error(2, 8) < error(1, 8 + 8)  # two books of 8 against one of 16


# --- finite scalar quantisation --------------------------------------------------------------------------------------

LEVELS = [3, 4, 5, 8, 16, 255, 256]


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("layers", [1, 2])
def test_parity_of_levels_values_and_gradients(levels: int, layers: int) -> None:
    ours, peer = ScalarQuantizer(layers=layers, codes=levels), FSQ(levels=[levels] * layers)
    latent = (3 * torch.randn(500, layers, generator=torch.Generator().manual_seed(0))).requires_grad_()
    values, indices = peer(latent[None])
    straight, codes, commitment = ours(latent)
    assert torch.equal(codes, peer.indices_to_level_indices(indices[0].long()))
    torch.testing.assert_close(straight, values[0])
    assert commitment == 0
    weights = torch.randn(500, layers, generator=torch.Generator().manual_seed(1))
    (mine,) = torch.autograd.grad((straight * weights).sum(), latent)
    (theirs,) = torch.autograd.grad((values[0] * weights).sum(), latent)
    torch.testing.assert_close(mine, theirs)
    assert mine.abs().max() > 0.01


def test_parity_with_two_levels() -> None:
    """The peer refuses two levels in the paper's bounding and offers a symmetric one: the same split, other values."""
    ours, peer = ScalarQuantizer(layers=3, codes=2), FSQ(levels=[2] * 3, preserve_symmetry=True)
    latent = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    values, indices = peer(latent[None])
    codes = ours.encode(latent)
    assert torch.equal(codes, peer.indices_to_level_indices(indices[0].long()))
    torch.testing.assert_close(2 * ours.decode(codes) + 1, values[0])


def centred(quantizer: ScalarQuantizer, codes: Tensor) -> Tensor:
    """Latent numbers that are bounded to exactly the levels of the codes."""
    middle = (codes - quantizer.levels // 2 + quantizer.offset) / quantizer.reach
    return middle.double().clamp(-0.999999, 0.999999).atanh().float() - quantizer.shift


@given(st.one_of(st.integers(2, 40), st.sampled_from([255, 256, 1001, 1002, 1023, 1024])))
def test_every_level_is_reached_and_stays_in_bounds(levels: int) -> None:
    ours = ScalarQuantizer(layers=1, codes=levels)
    every = torch.arange(levels)[:, None]
    assert torch.equal(ours.encode(centred(ours, every)), every)
    far = ours.encode(torch.tensor([[-1e6], [-30.0], [30.0], [1e6]]))[:, 0]
    assert far.tolist() == [0, 0, levels - 1, levels - 1]
    values = ours.decode(every)[:, 0]
    assert -1 <= values.min() < values.max() <= 1
    torch.testing.assert_close(values.diff(), torch.full((levels - 1,), 1 / (levels // 2)))


@given(st.integers(2, 64), st.integers(1, 4), st.integers(0, 1000))
def test_what_goes_on_is_what_the_codes_stand_for(levels: int, layers: int, seed: int) -> None:
    ours = ScalarQuantizer(layers=layers, codes=levels)
    latent = 2 * torch.randn(50, layers, generator=torch.Generator().manual_seed(seed))
    straight, codes, _ = ours(latent)
    assert torch.equal(codes, ours.encode(latent))
    torch.testing.assert_close(straight, ours.decode(codes))
    assert torch.equal(ours.encode(centred(ours, codes)), codes)
    order = latent[:, 0].argsort()
    assert (codes[order, 0].diff() >= 0).all()


@pytest.mark.parametrize("levels", [2, 3, 4, 8])
def test_the_numbers_of_a_new_encoder_are_spread_over_levels(levels: int) -> None:
    """They are small; all on the level at 0 would leave the decoder without a signal."""
    ours = ScalarQuantizer(layers=3, codes=levels)
    latent = 0.01 * torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([5.0, 0.0, -0.1])
    latent[:, 2] = 1.0  # and one of them never moves
    assert (ours.encode(latent)[:, 1].unique().numel() == 1) == (levels > 2)
    ours.initialise(latent, torch.Generator())
    used = [column.unique().numel() for column in ours.encode(latent).T]
    assert min(used[:2]) >= min(levels, 3)
    assert used[2] == 1
    assert (ours.mean[2], ours.scale[2]) == (0, 1)


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 8, 16])
def test_two_values_that_are_equally_frequent_get_two_levels(levels: int) -> None:
    ours = ScalarQuantizer(layers=1, codes=levels)
    latent = torch.tensor([[0.01], [-0.01]]).repeat(50, 1)
    ours.initialise(latent, torch.Generator())
    assert ours.encode(latent).unique().numel() == 2


def test_numbers_that_span_levels_are_left_as_they_are() -> None:
    ours = ScalarQuantizer(layers=2, codes=16)
    latent = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    ours.initialise(latent, torch.Generator())
    assert torch.equal(ours.scale, torch.ones(2))
    torch.testing.assert_close(ours.mean, latent.mean(0))


# --- what all kinds have in common -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", QUANTIZERS)
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_every_kind_keeps_the_interface(kind: str, layers: int) -> None:
    generator = torch.Generator().manual_seed(0)
    quantizer = QUANTIZERS[kind](wanted(layers, 6))
    latent = torch.randn(300, quantizer.width, generator=generator)
    quantizer.initialise(latent, generator)
    latent.requires_grad_()
    straight, codes, commitment = quantizer.eval()(latent)
    assert codes.shape == (300, layers)
    assert codes.dtype == torch.int64
    assert torch.equal(codes, quantizer.encode(latent))
    assert straight.shape == latent.shape
    torch.testing.assert_close(straight, quantizer.decode(codes))
    assert commitment.ndim == 0
    assert straight.requires_grad == quantizer.networks
    assert (straight - latent).abs().mean() < (0 - latent).abs().mean() or kind == "fsq"


def test_the_gradient_passes_straight_through_codebooks() -> None:
    ours, _ = pair()
    latent = torch.randn(8, 5, requires_grad=True)
    weights = torch.randn(8, 5)
    (ours.eval()(latent)[0] * weights).sum().backward()
    torch.testing.assert_close(latent.grad, weights)
