"""The prior: its losses against a second derivation, masks, offset targets, both code heads, learning, round trips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.support.examples import up_to
from vqbet.contract import BundleError, TrainingError
from vqbet.models import prior
from vqbet.models.normalizer import Normalizer
from vqbet.models.prior import Objective, Prior, PriorShape, pick
from vqbet.models.tokenizer import Tokenizer, TokenizerShape

GOLDEN = Path(__file__).parents[1] / "golden" / "prior.json"
T, H, D, A, Q, K = 4, 3, 5, 2, 2, 6


def tokenizer(layers: int = Q) -> Tokenizer:
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    normalizer = Normalizer.fit(rng.uniform(0, 500, (100, A)).astype(np.float32))
    model = Tokenizer(normalizer, TokenizerShape(chunk=H, layers=layers, codes=K, latent=8, hidden=16))
    model.initialise(rng.uniform(0, 500, (200, H, A)).astype(np.float32), torch.Generator().manual_seed(1))
    model.trained_steps += 1
    return model


def build(
    objective: Objective | None = None,
    *,
    layers: int = Q,
    dropout: float = 0.0,
    sequential: bool = False,
    head_hidden: int = 24,
) -> Prior:
    shape = PriorShape(
        window=T, depth=2, heads=2, width=16, head_hidden=head_hidden, dropout=dropout, sequential=sequential
    )  # fmt: skip
    frozen = tokenizer(layers)
    torch.manual_seed(2)
    return Prior(frozen, Normalizer.fit(np.array([[-3.0] * D, [3.0] * D], np.float32)), shape, objective)


def windows(count: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "observation": rng.normal(size=(count, T, D)).astype(np.float32),
        "action": rng.uniform(0, 500, (count, T + H - 1, A)).astype(np.float32),
        "valid": np.ones((count, T + H - 1), bool),
    }


def by_hand(model: Prior, batch: dict[str, np.ndarray], goal: Objective) -> float:
    """The loss once more, position by position, for true offset codes."""
    count = len(batch["action"])
    total = 0.0
    features = model.features(torch.from_numpy(batch["observation"]))
    for b in range(count):
        for t in range(T):
            if not batch["valid"][b, t : t + H].all():
                continue
            chunk = torch.from_numpy(batch["action"][b, t : t + H])[None]
            target = model.tokenizer.normalizer.normalize(chunk)
            codes = model.tokenizer.encode(target)
            logits = model.code_head(features[b, t][None], codes)[0]
            for layer, weight in enumerate([goal.primary_weight] + [goal.secondary_weight] * (Q - 1)):
                p = logits[layer].softmax(0)[codes[0, layer]]
                total += float(-weight * (1 - p) ** goal.focal_gamma * p.log())
            error = model.chunk(features[b, t][None], codes) - target
            total += float(goal.offset_weight * error.abs().mean())
    return total / (count * T)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@torch.no_grad()
def test_the_loss_is_the_papers(sequential: bool, gamma: float) -> None:
    goal = Objective(gamma, 5.0, 0.7, 10.0, offset_target="true")
    model, batch = build(goal, sequential=sequential).eval(), windows(3)
    batch["valid"][0, 4:] = False
    batch["valid"][1, :2] = False
    assert float(model.loss(batch)[0]) == pytest.approx(by_hand(model, batch, goal), rel=1e-4)


@torch.no_grad()
def test_without_focus_the_code_loss_is_cross_entropy() -> None:
    model, batch = build(Objective(focal_gamma=0.0)).eval(), windows()
    features = model.features(torch.from_numpy(batch["observation"])).flatten(0, 1)
    action = model.tokenizer.normalizer.normalize(torch.from_numpy(batch["action"]))
    codes = model.tokenizer.encode(torch.stack([action[b, t : t + H] for b in range(16) for t in range(T)]))
    expected = F.cross_entropy(model.code_head(features, codes)[:, 0], codes[:, 0])
    torch.testing.assert_close(model.loss(batch)[1]["primary_loss"], expected)


@torch.no_grad()
def test_invalid_steps_change_nothing() -> None:
    model, batch = build(Objective(offset_target="true")).eval(), windows()
    batch["valid"][:, -2:] = False
    before = model.loss(batch)[0]
    batch["action"][:, -2:] = 9e9
    assert torch.equal(model.loss(batch)[0], before)


@torch.no_grad()
def test_a_batch_with_nothing_valid_has_loss_zero() -> None:
    batch = windows()
    batch["valid"][:] = False
    loss, metrics = build().eval().loss(batch)
    assert float(loss) == 0
    assert all(torch.isfinite(value) for value in metrics.values())


@torch.no_grad()
def test_the_loss_of_a_batch_is_the_mean_of_its_halves() -> None:
    """So that two processes that each take half of a batch train as one does."""
    model, batch = build(Objective(offset_target="true")).eval(), windows()
    batch["valid"][:3, 3:] = False
    halves = [model.loss({name: value[part] for name, value in batch.items()})[0] for part in (slice(8), slice(8, 16))]
    torch.testing.assert_close(model.loss(batch)[0], torch.stack(halves).mean())


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("target", ["sampled", "true"])
def test_the_offset_is_trained_on_the_codes_that_were_asked_for(target: str, sequential: bool) -> None:
    model = build(Objective(offset_target=target), sequential=sequential)
    true = torch.zeros(4000, Q, dtype=torch.int64)
    features = torch.zeros(4000, 16)
    model.code_head.draw = lambda features, choose: torch.ones(len(features), Q, dtype=torch.int64)
    logits = F.one_hot(torch.ones(4000, Q, dtype=torch.int64), K) * 1e9
    share = (model._offset_codes(features, logits, true) == true).float().mean().item()
    assert share == pytest.approx({"sampled": 0.0, "true": 1.0}[target])


def test_secondary_codes_are_conditioned_on_those_before_them_in_sequential_mode_only() -> None:
    features = torch.randn(8, 16)
    one, two = torch.zeros(8, Q, dtype=torch.int64), torch.full((8, Q), 3)
    parallel, sequential = build().code_head, build(sequential=True).code_head
    assert torch.equal(parallel(features, one), parallel(features, two))
    assert torch.equal(sequential(features, one)[:, 0], sequential(features, two)[:, 0])
    assert not torch.allclose(sequential(features, one)[:, 1], sequential(features, two)[:, 1])


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_drawing_the_best_codes_agrees_with_the_teacher_forced_logits(sequential: bool, layers: int) -> None:
    head = build(sequential=sequential, layers=layers).code_head
    features = torch.randn(32, 16)
    codes = head.draw(features, lambda layer, logits: logits.argmax(1))
    assert torch.equal(codes, head(features, codes).argmax(2))


def test_the_offset_is_the_sum_of_one_vector_per_layer() -> None:
    head = build().offset_head
    features, codes = torch.randn(10, 16), torch.randint(K, (10, Q))
    table = head.head(features).reshape(10, Q, K, H * A)
    expected = torch.stack([sum(table[m, q, codes[m, q]] for q in range(Q)) for m in range(10)])
    torch.testing.assert_close(head(features, codes), expected)


@pytest.mark.parametrize("head_hidden", [0, 24])
@pytest.mark.parametrize("layers", [1, 2, 3])
@torch.no_grad()
def test_a_few_rows_get_the_offsets_of_the_full_product(layers: int, head_hidden: int) -> None:
    head = build(layers=layers, head_hidden=head_hidden).offset_head
    for count in range(1, head.FEW + 3):
        features, codes = torch.randn(count, 16), torch.randint(K, (count, layers))
        torch.testing.assert_close(
            head._chosen(features, codes),
            head.head(features)
            .view(count, layers, K, -1)[torch.arange(count)[:, None], torch.arange(layers), codes]
            .sum(1),
            rtol=1e-4,
            atol=1e-6,
        )


@pytest.mark.parametrize("sequential", [False, True])
@torch.no_grad()
def test_heads_without_hidden_layers_are_linear(sequential: bool) -> None:
    model = build(sequential=sequential, head_hidden=0)
    one, two, codes = torch.randn(5, 16), torch.randn(5, 16), torch.randint(K, (5, Q))
    for head in (model.code_head, model.offset_head):
        middle = (head(one, codes) + head(two, codes)) / 2
        torch.testing.assert_close(head((one + two) / 2, codes), middle, rtol=1e-4, atol=1e-6)
    curved = build(sequential=sequential).offset_head
    assert (curved((one + two) / 2, codes) - (curved(one, codes) + curved(two, codes)) / 2).abs().max() > 1e-4


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_decoded_is_what_the_tokenizer_makes_of_every_combination(layers: int) -> None:
    model = build(layers=layers)
    codes = torch.randint(K, (200, layers))
    torch.testing.assert_close(model.decoded[tuple(codes.T)], model.tokenizer.decode(codes), rtol=1e-4, atol=1e-6)
    assert "decoded" not in model.state_dict()


def test_too_many_combinations_are_decoded_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    table = build()
    monkeypatch.setattr(prior, "TABLE", K**Q - 1)
    model, features, codes = build(), torch.randn(40, 16), torch.randint(K, (40, Q))
    assert model.decoded is None
    torch.testing.assert_close(model.chunk(features, codes), table.chunk(features, codes), rtol=1e-4, atol=1e-6)


@given(st.integers(1, 40), st.integers(0, 1000))
def test_pick_is_where_the_cumulative_distribution_passes_the_number(codes: int, seed: int) -> None:
    """As it was written first, in floating-point numbers, whose sums a GPU adds in any order."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(500, codes, generator=generator)
    uniform = torch.rand(500, dtype=torch.float64, generator=generator)
    cumulative = logits.double().softmax(1).cumsum(1)
    expected = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(1)
    assert torch.equal(pick(logits, uniform), expected)


def test_pick_stays_within_the_codes_at_the_largest_number() -> None:
    logits = 4 * torch.randn(500, 7)
    for uniform in (torch.full((500,), 1 - 2**-53, dtype=torch.float64), torch.full((500,), 1 - 2**-24)):
        assert pick(logits, uniform).max() <= 6


@up_to(20)
@given(st.integers(2, 12), st.integers(0, 1000))
def test_pick_inverts_the_distribution(codes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(1, codes, generator=generator)
    uniform = (torch.arange(20_000) + 0.5) / 20_000
    drawn = pick(logits.expand(20_000, codes), uniform)
    shares = torch.bincount(drawn, minlength=codes) / 20_000
    torch.testing.assert_close(shares, logits.softmax(1)[0], rtol=0, atol=2e-4)


def test_pick_never_leaves_the_codes_nor_takes_an_impossible_one() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, 4)
    assert pick(logits, torch.tensor([0.0, 1.0 - 2**-24])).tolist() == [1, 2]


def test_dropout_acts_in_training_and_the_tokenizer_stays_frozen() -> None:
    model, batch = build(Objective(offset_target="true"), dropout=0.5), windows()
    assert not torch.equal(model.train().loss(batch)[0], model.loss(batch)[0])
    assert torch.equal(model.eval().loss(batch)[0], model.loss(batch)[0])
    before = {name: value.clone() for name, value in model.tokenizer.state_dict().items()}
    model.train().loss(batch)[0].backward()
    assert not model.tokenizer.training
    assert not any(parameter.requires_grad for parameter in model.tokenizer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.tokenizer.state_dict().items())
    assert all(p.grad is not None for name, p in model.named_parameters() if not name.startswith("tokenizer"))


@pytest.mark.slow
def test_it_learns_two_modes_without_averaging_them() -> None:
    """One observation, two opposite chunks: the codes stay 50:50 and each keeps its own actions."""
    torch.manual_seed(0)
    chunk = np.stack([np.full((H, A), 100.0), np.full((H, A), 400.0)]).astype(np.float32)
    frozen = tokenizer()
    frozen.initialise(np.repeat(chunk, 50, axis=0), torch.Generator().manual_seed(0))
    shape = PriorShape(window=1, depth=1, heads=2, width=16, head_hidden=24, dropout=0.0, sequential=False)
    model = Prior(frozen, Normalizer(D), shape, Objective(offset_target="true"))
    batch = {
        "observation": np.zeros((64, 1, D), np.float32),
        "action": np.tile(chunk, (32, 1, 1)),
        "valid": np.ones((64, H), bool),
    }
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(300):
        loss, metrics = model.train().loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["action_error"] < 10  # px
    feature = model.eval().features(torch.zeros(1, 1, D))[:, -1]
    codes = frozen.encode(frozen.normalizer.normalize(torch.from_numpy(chunk)))
    share = model.code_head(feature, codes[:1]).softmax(2)[0, 0, codes[:, 0]]
    torch.testing.assert_close(share, torch.full((2,), 0.5), rtol=0, atol=0.05)
    actions = frozen.normalizer.unnormalize(model.chunk(feature.expand(2, -1), codes)).detach().numpy()
    np.testing.assert_allclose(actions, chunk, atol=15)


def test_an_untrained_tokenizer_is_refused() -> None:
    untrained = tokenizer()
    untrained.trained_steps.zero_()
    shape = PriorShape(window=T, depth=1, heads=1, width=8, head_hidden=8, dropout=0.0, sequential=False)
    with pytest.raises(TrainingError, match="expected a trained tokenizer, got one with 0 trained steps"):
        Prior(untrained, Normalizer(D), shape)


def test_metrics_are_scalars_in_physical_units_and_carry_no_graph() -> None:
    _, metrics = build().loss(windows())
    assert set(metrics) == {
        *("primary_loss", "secondary_loss", "offset_loss", "accuracy_0", "accuracy_1", "action_error")
    }
    assert all(value.ndim == 0 and not value.requires_grad for value in metrics.values())
    assert 50 < metrics["action_error"] < 500  # px: nothing is learnt yet


@pytest.mark.parametrize("head_hidden", [0, 24])
@pytest.mark.parametrize("sequential", [False, True])
@torch.no_grad()
def test_components_and_back_is_bitwise(sequential: bool, head_hidden: int) -> None:
    model = build(sequential=sequential, head_hidden=head_hidden).eval()
    arguments = json.loads(json.dumps(model.arguments()))
    again = Prior.from_components(arguments, model.components(), tokenizer=model.tokenizer)
    observation = torch.randn(7, T, D)
    codes = torch.randint(K, (7, Q))
    one, two = (prior.chunk(prior.features(observation)[:, -1], codes) for prior in (model, again))
    assert torch.equal(one, two)


def test_a_component_of_another_shape_is_refused_by_name() -> None:
    model = build()
    with pytest.raises(BundleError, match=r"prior: tensor 'decoder\.position'"):
        Prior.from_components({**model.arguments(), "window": 9}, model.components(), tokenizer=model.tokenizer)


@torch.no_grad()
def test_golden_numbers() -> None:
    """Losses and logits on fixed data and weights, written down once."""
    golden = json.loads(GOLDEN.read_text())
    model = build(Objective(offset_target="true")).eval()
    loss, metrics = model.loss(windows())
    features = model.features(torch.from_numpy(windows()["observation"]))[:2, -1]
    assert float(loss) == pytest.approx(golden["loss"], rel=1e-4)
    assert {name: pytest.approx(float(value), rel=1e-3) for name, value in metrics.items()} == golden["metrics"]
    logits = model.code_head(features, torch.zeros(2, Q, dtype=torch.int64))
    np.testing.assert_allclose(logits.numpy(), golden["logits"], atol=1e-4)
