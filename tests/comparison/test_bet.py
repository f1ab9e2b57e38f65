"""Behavior Transformer in training: bins, losses and gradients against second derivations, padding, the loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.comparison.bet_model import SHAPE, H, K, T, chunks, fitted, plan, unfitted, windows
from tests.support import small
from tests.support.small import A, D, G
from tests.support.synthetic import synthetic
from vqbet.comparison.policies.bet import BeT
from vqbet.contract import TrainingError
from vqbet.demos.goals import GoalWindows
from vqbet.demos.windows import Windows
from vqbet.models.normalizer import Normalizer
from vqbet.models.spaces import Spaces
from vqbet.training.recipe import seed_everything

# --- bins ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, H])
def test_bins_are_the_k_means_centres_of_the_normalised_actions(length: int) -> None:
    """Lloyd's fixed point, looked for once more in float64: each centre is the mean of the chunks nearest to it."""
    data = chunks(400, length)
    policy = fitted(replace(SHAPE, bins=12, chunk=length), data)
    points = (data.astype(np.float64).reshape(400, -1) - 250) / 250
    centres = policy.centres.numpy().astype(np.float64)
    members = ((points[:, None] - centres) ** 2).sum(2).argmin(1)
    assert set(members) == set(range(12))
    means = np.stack([points[members == index].mean(axis=0) for index in range(12)])
    np.testing.assert_allclose(centres, means, atol=1e-5)
    bins = policy.bins(policy.spaces.action.normalize(torch.from_numpy(data)))
    assert np.array_equal(bins.numpy(), members)


def test_each_cluster_gets_a_bin_and_the_same_generator_the_same_bins() -> None:
    """In pixels the second channel would be all that counts; normalised, both do."""
    rng = np.random.default_rng(0)
    corners = np.array([[0.0, 0.0], [0.0, 500.0], [5.0, 0.0], [5.0, 500.0]])
    data = (np.repeat(corners, 50, axis=0) + rng.normal(size=(200, 2)) * [0.02, 2.0]).astype(np.float32)[:, None]
    policy = BeT(Spaces(Normalizer(D), Normalizer.fit(data)), replace(SHAPE, bins=4, chunk=1))
    policy.fit(data, torch.Generator().manual_seed(7))
    centres = policy.spaces.action.unnormalize(policy.centres).numpy()
    found = centres[np.lexsort((centres[:, 1], centres[:, 0].round()))]
    np.testing.assert_allclose(found, corners, atol=1.0)
    before = policy.centres.clone()
    policy.fit(data, torch.Generator().manual_seed(7))
    assert torch.equal(policy.centres, before)
    assert int(policy.fitted) == 200


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (chunks()[:, :1], r"bet: chunks: expected finite numbers of shape \(N, 3, 2\), got shape \(300, 1, 2\)"),
        (np.full((9, H, A), np.nan, np.float32), r"got shape \(9, 3, 2\), not all of them finite"),
        (np.zeros((0, H, A), np.float32), "bet: 6 bins were asked of 0 chunks, of which 0 are distinct"),
        (
            np.tile(chunks(5), (20, 1, 1)),
            "bet: 6 bins were asked of 100 chunks, of which 5 are distinct; ask for at most 5",
        ),
    ],
)
def test_chunks_without_so_many_bins_are_refused(data: np.ndarray, sentence: str) -> None:
    policy = unfitted()
    with pytest.raises(TrainingError, match=sentence):
        policy.fit(data, torch.Generator())
    with pytest.raises(TrainingError, match="expected fitted bins"):
        policy.loss(windows())


def test_as_many_bins_as_distinct_chunks_reproduce_them() -> None:
    data = np.tile(chunks(K), (20, 1, 1))
    policy = fitted(points=data)
    found = policy.spaces.action.unnormalize(policy.centres.view(K, H, A)).numpy()
    assert sorted(found[:, 0, 0].tolist()) == pytest.approx(sorted(data[:K, 0, 0].tolist()), abs=1e-2)


def test_without_fitted_bins_nothing_works() -> None:
    policy = unfitted()
    for attempt in (lambda: policy.loss(windows()), lambda: plan(policy, windows())):
        with pytest.raises(TrainingError, match="bet: expected fitted bins, got a model without any; call fit"):
            attempt()
    loaded = BeT.from_components(policy.arguments(), policy.components())
    with pytest.raises(TrainingError, match="call fit"):
        plan(loaded, windows())


# --- losses ----------------------------------------------------------------------------------------------------------


def by_hand(policy: BeT, batch: dict[str, np.ndarray]) -> tuple[float, float]:
    """Focal loss and offset loss once more, position by position, in float64 numpy from the decoder's features on."""
    with torch.no_grad():
        goal = torch.from_numpy(batch["goal"]) / 2 if policy.goal_steps else None
        features = policy.decoder(torch.from_numpy(batch["observation"]) / 3, goal).double().numpy()
    head = [value.detach().double().numpy() for value in (policy.head.weight, policy.head.bias)]
    centres, length = policy.centres.double().numpy(), policy.chunk
    focal = offset = 0.0
    for b in range(len(features)):
        for t in range(T):
            if not batch["valid"][b, t : t + length].all():
                continue
            output = head[0] @ features[b, t] + head[1]
            action = batch["action"][b, t : t + length].astype(np.float64).ravel() / 250 - 1
            true = int(((centres - action) ** 2).sum(1).argmin())
            p = np.exp(output[true]) / np.exp(output[:K]).sum()
            focal += (1 - p) ** policy.focal_gamma * -np.log(p)
            predicted = output[K:].reshape(K, -1)[true]
            offset += np.mean((action - centres[true] - predicted) ** 2)
    return focal / (len(features) * T), offset / (len(features) * T)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize(("length", "goal_steps"), [(1, 0), (H, 0), (1, G)])
def test_the_loss_is_the_papers(gamma: float, length: int, goal_steps: int) -> None:
    shape = replace(SHAPE, chunk=length, goal_steps=goal_steps)
    policy, batch = fitted(shape, focal_gamma=gamma, offset_weight=7.0), windows(chunk=length)
    batch["valid"][0, -1] = False
    batch["valid"][1, :2] = False
    focal, offset = by_hand(policy, batch)
    loss, metrics = policy.loss(batch)
    assert float(metrics["focal_loss"]) == pytest.approx(focal, rel=1e-4)
    assert float(metrics["offset_loss"]) == pytest.approx(offset, rel=1e-4)
    assert float(loss.detach()) == pytest.approx(focal + 7 * offset, rel=1e-4)


def test_the_focal_loss_looks_away_from_what_is_known() -> None:
    """Two bins and logits (0, x): p = 1 / (1 + exp(-x)); at p = 0.9 the loss is a hundredth of the cross-entropy."""
    policy = fitted(replace(SHAPE, bins=2, chunk=1), np.array([[[0.0, 0.0]], [[500.0, 500.0]]], np.float32))
    batch = windows(chunk=1) | {"action": np.full((16, T, A), 500.0, np.float32)}
    true = int(policy.bins(torch.ones(1, 1, A)))
    with torch.no_grad():
        policy.head.weight.zero_()
        policy.head.bias.zero_()
        policy.head.bias[true] = np.log(9.0)
    metrics = policy.loss(batch)[1]
    assert float(metrics["focal_loss"]) == pytest.approx(-0.01 * np.log(0.9), rel=1e-4)
    assert float(metrics["offset_loss"]) == pytest.approx(0, abs=1e-9)
    assert float(metrics["accuracy"]) == 1


def test_the_offset_loss_touches_the_true_bins_offsets_only() -> None:
    """And the focal loss touches all logits and no offset."""
    policy, batch = fitted(replace(SHAPE, chunk=1)), windows(chunk=1)
    batch["valid"][4:8, 1] = False
    outputs: list[torch.Tensor] = []
    policy.head.register_forward_hook(lambda module, given, output: (output.retain_grad(), outputs.append(output))[1])
    policy.loss(batch)[0].backward()
    gradient = outputs[0].grad.view(16, T, -1)
    true = policy.bins(policy.spaces.action.normalize(torch.from_numpy(batch["action"])).flatten(0, 1)[:, None])
    one_hot = torch.nn.functional.one_hot(true.view(16, T), K).bool()
    valid = torch.from_numpy(batch["valid"])
    touched = gradient[..., K:].view(16, T, K, A).abs().sum(3) > 0
    assert torch.equal(touched, one_hot & valid[:, :, None])
    assert torch.equal((gradient[..., :K] != 0).all(2), valid)
    without = fitted(replace(SHAPE, chunk=1), offset_weight=0.0)
    without.loss(batch)[0].backward()
    assert not without.head.weight.grad[K:].any()


# --- what training must not depend on --------------------------------------------------------------------------------


def test_padding_changes_nothing() -> None:
    policy, batch = fitted(), windows()
    batch["valid"][:, -2:] = False
    batch["valid"][:4, :2] = False
    before = policy.loss(batch)[0]
    batch["action"][:, -2:] = 9e9
    batch["action"][:4, :2] = -9e9
    assert torch.equal(policy.loss(batch)[0], before)
    batch["action"][4:, :2] += 100.0  # recorded: every position is asked for a chunk, not only the last
    assert not torch.isclose(policy.loss(batch)[0], before)


def test_a_batch_with_nothing_valid_has_loss_zero() -> None:
    batch = windows()
    batch["valid"][:] = False
    loss, metrics = fitted().loss(batch)
    assert float(loss.detach()) == 0
    assert all(float(value) == 0 for value in metrics.values())


def test_the_loss_of_a_batch_is_the_mean_of_its_halves() -> None:
    policy, batch = fitted(replace(SHAPE, goal_steps=G)), windows()
    batch["valid"][:3, 3:] = False
    torch.testing.assert_close(policy.loss(batch)[0], small.mean_of_halves(policy, batch))


def test_dropout_acts_in_training_alone() -> None:
    policy, batch = fitted(replace(SHAPE, dropout=0.5)), windows()
    assert not torch.equal(policy.train().loss(batch)[0], policy.loss(batch)[0])
    assert np.array_equal(plan(policy, batch)[0], plan(policy, batch)[0])
    metrics = policy.loss(batch)[1]
    assert list(metrics) == ["focal_loss", "offset_loss", "accuracy", "action_error"]
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())


def test_it_trains_in_the_loop(tmp_path: Path) -> None:
    demos, goal = synthetic(episodes=4), ("feature_0", "feature_1")
    slots = GoalWindows(Windows(demos, window=T, chunk=1), demos, channels=goal, steps=G)
    seed_everything(0)
    policy = BeT(Spaces.fit(demos, goal), replace(SHAPE, chunk=1, goal_steps=G, dropout=0.1))
    policy.fit(demos.action[:, None], torch.Generator().manual_seed(0))
    centres = policy.centres.clone()
    trained = small.three_steps(policy, slots, tmp_path)
    assert [row["step"] for row in trained.history] == [1, 2, 3]
    assert "action_error" in trained.history[0]
    assert torch.equal(policy.centres, centres)
    assert not policy.training
