"""The tokenizer: parity with an independent residual VQ, k-means, moving averages, dead codes, training, health."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_quantize_pytorch import ResidualVQ

from vqbet.contract import BundleError, TrainingError
from vqbet.normalizer import Normalizer
from vqbet.tokenizer import ResidualQuantizer, Tokenizer, TokenizerShape, check_health, kmeans

GOLDEN = Path(__file__).parent / "golden" / "tokenizer.json"
LIMITS = {"max_mean_error": 0.1, "max_p99_error": 0.5, "min_used": 0.5}


def chunks(count: int = 600, chunk: int = 3, seed: int = 0) -> np.ndarray:
    """Straight pushes in one of eight directions, with noise, in pixels: (N, H, 2)."""
    rng = np.random.default_rng(seed)
    angle = rng.integers(0, 8, count) * np.pi / 4 + rng.normal(0, 0.05, count)
    way = np.arange(1, chunk + 1)[None, :, None] * np.stack([np.cos(angle), np.sin(angle)], 1)[:, None]
    return (256 + 50 * way + rng.normal(0, 0.5, (count, chunk, 2))).astype(np.float32)


def batches(data: np.ndarray) -> dict[str, np.ndarray]:
    return {"action": data, "valid": np.ones(data.shape[:2], bool)}


def build(data: np.ndarray, **settings: float) -> Tokenizer:
    torch.manual_seed(0)
    shape = TokenizerShape(chunk=data.shape[1], layers=2, codes=8, latent=16, hidden=32)
    tokenizer = Tokenizer(Normalizer.fit(data), shape, **settings)
    tokenizer.initialise(data, torch.Generator().manual_seed(0))
    return tokenizer


def train(tokenizer: Tokenizer, data: np.ndarray, steps: int) -> Tokenizer:
    optimizer = torch.optim.Adam(tokenizer.parameters(), 3e-3)
    for _ in range(steps):
        loss, _ = tokenizer.train().loss(batches(data))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tokenizer.eval()


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train(build(chunks()), chunks(), 400)


# --- the quantiser against lucidrains' vector-quantize-pytorch -------------------------------------------------------


def pair(decay: float = 0.8) -> tuple[ResidualQuantizer, ResidualVQ]:
    """Ours and the peer's, with the same random codebooks and counts."""
    torch.manual_seed(3)
    ours = ResidualQuantizer(layers=3, codes=6, latent=5, decay=decay, revive_below=0.0)
    peer = ResidualVQ(dim=5, num_quantizers=3, codebook_size=6, decay=decay, threshold_ema_dead_code=0)
    ours.codebooks.copy_(torch.randn(3, 6, 5) * torch.tensor([1.0, 0.5, 0.25])[:, None, None])
    ours.mass.copy_(ours.codebooks * ours.usage[:, :, None])
    for layer, book in enumerate(peer.layers):
        book._codebook.embed.data.copy_(ours.codebooks[layer])
        book._codebook.embed_avg.data.copy_(ours.mass[layer] * 64)
        book._codebook.cluster_size.data.copy_(ours.usage[layer] * 64)
    return ours, peer


def test_parity_of_codes_quantised_vectors_and_commitment() -> None:
    ours, peer = pair()
    latent = torch.randn(64, 5)
    quantised, indices, losses = peer.eval()(latent)
    codes, residuals = ours.encode(latent)
    assert torch.equal(codes, indices)
    torch.testing.assert_close(ours.decode(codes), quantised)
    peer_losses = peer.train()(latent, freeze_codebook=True)[2]
    own = torch.stack([((r - ours.codebooks[q][codes[:, q]]) ** 2).mean() for q, r in enumerate(residuals)])
    torch.testing.assert_close(own, peer_losses.flatten())
    assert losses.abs().max() == 0


def test_parity_of_the_moving_averages() -> None:
    """Where no code is empty the peer's Laplace smoothing (1e-5) is all that differs."""
    ours, peer = pair()
    peer.train()
    for _ in range(5):
        latent = torch.randn(64, 5)
        codes, residuals = ours.encode(latent)
        ours.update(residuals, codes)
        peer(latent)
        for layer, book in enumerate(peer.layers):
            torch.testing.assert_close(ours.usage[layer] * 64, book._codebook.cluster_size[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(ours.codebooks[layer], book._codebook.embed[0], rtol=1e-3, atol=1e-3)


# --- properties ------------------------------------------------------------------------------------------------------


def test_the_first_update_leaves_an_unused_code_where_it_is() -> None:
    """Counts that start at zero beside sums that do not throw unused codes far away (0.6 in the notes on upstream)."""
    ours, _ = pair()
    before = ours.codebooks.clone()
    residuals = torch.randn(3, 64, 5)
    ours.update(residuals, torch.zeros(64, 3, dtype=torch.int64))
    torch.testing.assert_close(ours.codebooks[:, 1:], before[:, 1:])
    assert not torch.allclose(ours.codebooks[:, 0], before[:, 0])
    for _ in range(2000):
        ours.update(residuals, torch.zeros(64, 3, dtype=torch.int64))
    assert torch.isfinite(ours.codebooks).all()
    assert ours.codebooks[:, 1:].norm(dim=-1).min() > 0.01  # nor do they collapse to zero


def test_a_code_converges_to_the_mean_of_what_it_gets() -> None:
    ours = ResidualQuantizer(layers=1, codes=2, latent=3, decay=0.9, revive_below=0.0)
    points = torch.randn(1, 50, 3)
    for _ in range(200):
        ours.update(points, torch.zeros(50, 1, dtype=torch.int64))
    torch.testing.assert_close(ours.codebooks[0, 0], points[0].mean(0), rtol=1e-4, atol=1e-4)
    assert ours.usage[0, 0].item() == pytest.approx(1.0, abs=1e-4)


def test_dead_codes_are_revived_at_residuals_of_the_batch() -> None:
    torch.manual_seed(0)
    ours = ResidualQuantizer(layers=2, codes=8, latent=4, decay=0.5, revive_below=1.0)
    residuals = torch.randn(2, 32, 4)
    for _ in range(4):  # 32 / 8 vectors a batch at first, half of that after each step
        ours.update(residuals, torch.zeros(32, 2, dtype=torch.int64))
    for layer in range(2):
        apart = (ours.codebooks[layer, 1:, None] - residuals[layer]).abs().amax(2)
        assert apart.min(1).values.max() < 1e-5


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(2, 9), st.integers(1, 6), st.integers(0, 1000))
def test_every_layer_brings_quantised_vectors_nearer(layers: int, codes: int, latent: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(200, latent, generator=generator)
    ours = ResidualQuantizer(layers=layers, codes=codes, latent=latent, decay=0.9, revive_below=0.0)
    ours.initialise(data, generator)
    chosen, residuals = ours.encode(data)
    assert chosen.shape == (200, layers)
    assert 0 <= chosen.min() <= chosen.max() < codes
    torch.testing.assert_close(ours.usage.sum(1), torch.ones(layers))
    sizes = [*(residual.norm() for residual in residuals), (data - ours.decode(chosen)).norm()]
    assert all(later <= earlier + 1e-4 for earlier, later in itertools.pairwise(sizes))


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


# --- the tokenizer ---------------------------------------------------------------------------------------------------


def test_training_makes_it_healthy(trained: Tokenizer) -> None:
    health = trained.health(chunks(seed=1))
    check_health(health, **LIMITS)
    assert max(health["mean_error"]) < 5  # px
    assert health["codes_used"][0] == 8
    json.dumps(health, allow_nan=False)


def test_encode_and_decode_are_inverse_on_decoded_chunks(trained: Tokenizer) -> None:
    data = trained.normalizer.normalize(torch.from_numpy(chunks()))
    once = trained.decode(trained.encode(data))
    assert (once - data).abs().mean() < 0.05
    assert once.shape == data.shape


def test_one_action_chunks_of_two_channels_work() -> None:
    data = chunks(chunk=1)
    health = train(build(data), data, 400).health(data)
    check_health(health, **LIMITS)
    assert len(health["mean_error"]) == data.shape[2]


def test_only_the_last_chunk_of_a_window_counts_and_only_where_complete() -> None:
    data = chunks(40)
    model = build(data).eval()
    expected, _ = model.loss(batches(data))
    padded = np.concatenate([np.full((40, 2, 2), 9e9, np.float32), data], axis=1)
    ill = np.concatenate([padded, np.full((10, 5, 2), np.nan, np.float32)])
    valid = np.ones((50, 5), bool)
    valid[:40, 0] = False  # padding before the episode
    valid[40:, 4] = False  # past the episode's end
    loss, metrics = model.loss({"action": ill, "valid": valid})
    torch.testing.assert_close(loss, expected)
    assert all(value.ndim == 0 for value in metrics.values())


def test_a_batch_without_a_complete_chunk_is_refused() -> None:
    with pytest.raises(TrainingError, match="no complete chunk of 3 actions"):
        build(chunks()).loss({"action": chunks(4), "valid": np.zeros((4, 3), bool)})


def test_the_gradient_passes_straight_through_to_the_encoder() -> None:
    data = chunks(64)
    model = build(data, commitment_weight=0.0)
    model.loss(batches(data))[0].backward()
    assert model.encoder[0].weight.grad.abs().sum() > 0


def test_codebooks_move_in_training_only() -> None:
    data = chunks(64)
    model = build(data).eval()
    before = model.quantizer.codebooks.clone()
    model.loss(batches(data))
    assert torch.equal(before, model.quantizer.codebooks)
    assert model.trained_steps == 0
    model.train().loss(batches(chunks(64, seed=1)))
    assert not torch.equal(before, model.quantizer.codebooks)
    assert model.trained_steps == 1


def test_components_and_back_is_bitwise(trained: Tokenizer) -> None:
    arguments = json.loads(json.dumps(trained.arguments()))
    again = Tokenizer.from_components(arguments, trained.components())
    data = trained.normalizer.normalize(torch.from_numpy(chunks()))
    assert torch.equal(again.encode(data), trained.encode(data))
    assert torch.equal(again.decode(again.encode(data)), trained.decode(trained.encode(data)))
    assert again.trained_steps == trained.trained_steps


def test_a_component_of_another_shape_is_refused_by_name(trained: Tokenizer) -> None:
    with pytest.raises(BundleError, match=r"tokenizer: tensor 'encoder\.0\.weight'"):
        Tokenizer.from_components({**trained.arguments(), "chunk": 4}, trained.components())


# --- health: each limit, and the untrained one -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"trained_steps": 0}, "never trained"),
        (
            {"mean_error_over_std": [0.01, 0.2]},
            "mean_error_over_std of action channel 1 is 0.200, expected at most 0.1",
        ),
        ({"mean_error_over_std": [float("nan"), 0.0]}, "channel 0 is nan"),
        ({"p99_error_over_std": [0.6, 0.1]}, "p99_error_over_std of action channel 0 is 0.600, expected at most 0.5"),
        ({"codes_used": [8, 3]}, "layer 1 uses 3 of 8 codes, expected at least 50%"),
    ],
)
def test_an_unhealthy_tokenizer_is_refused(trained: Tokenizer, fault: dict, sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        check_health({**trained.health(chunks()), **fault}, **LIMITS)


def test_an_untrained_tokenizer_fails_its_health_check() -> None:
    with pytest.raises(TrainingError, match=r"never trained; mean_error_over_std"):
        check_health(build(chunks()).health(chunks()), **LIMITS)


def test_a_channel_that_never_moves_has_no_error() -> None:
    data = chunks()
    data[:, :, 1] = 7.0
    health = train(build(data), data, 300).health(data)
    assert health["mean_error_over_std"][1] == health["mean_error"][1] == 0


def test_golden_numbers() -> None:
    """Ten steps on fixed data give the losses, codes and chunks that were written down once."""
    golden = json.loads(GOLDEN.read_text())
    model = train(build(chunks(64)), chunks(64), 10)
    loss, metrics = model.loss(batches(chunks(64)))
    data = model.normalizer.normalize(torch.from_numpy(chunks(4)))
    assert float(loss.detach()) == pytest.approx(golden["loss"], rel=1e-3)
    assert float(metrics["commitment"]) == pytest.approx(golden["commitment"], rel=1e-3)
    assert model.encode(data).tolist() == golden["codes"]
    np.testing.assert_allclose(model.decode(model.encode(data)).numpy(), golden["chunk"], atol=1e-3)
