"""The decoder: causal, position-aware, parity with torch's own transformer; tensors in and out of modules."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from vqbet.contract import BundleError
from vqbet.models.nets import MLP, SHORT, Decoder, DecoderShape, attended, restore, tensors


def decoder(dropout: float = 0.0, depth: int = 2) -> Decoder:
    torch.manual_seed(0)
    return Decoder(3, DecoderShape(6, depth, 2, 8, dropout))


def test_a_position_sees_no_later_observation() -> None:
    model, observation = decoder().eval(), torch.randn(4, 6, 3)
    changed = observation.clone()
    changed[:, 4:] += 1.0
    before, after = model(observation), model(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_order_matters() -> None:
    model = decoder().eval()
    same = torch.ones(1, 6, 3)
    assert not torch.allclose(model(same)[0, 0], model(same)[0, 5])


def test_parity_with_torchs_transformer_encoder() -> None:
    """The same weights in torch's own pre-LN encoder, with tanh-GELU and a causal mask, give the same features."""
    model = decoder(depth=3).eval()
    layer = nn.TransformerEncoderLayer(
        8, 2, 32, dropout=0.0, activation=lambda x: nn.functional.gelu(x, approximate="tanh"), batch_first=True,
        norm_first=True,
    )  # fmt: skip
    peer = nn.TransformerEncoder(layer, 3, norm=nn.LayerNorm(8), enable_nested_tensor=False).eval()
    with torch.no_grad():
        for index, (own, other) in enumerate(zip(model.blocks, peer.layers, strict=True)):
            for parameter in own.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1 * (index + 1))
            other.self_attn.in_proj_weight.copy_(own.attention.qkv.weight)
            other.self_attn.in_proj_bias.copy_(own.attention.qkv.bias)
            other.self_attn.out_proj.load_state_dict(own.attention.out.state_dict())
            other.linear1.load_state_dict(own.expand.state_dict())
            other.linear2.load_state_dict(own.contract.state_dict())
            other.norm1.load_state_dict(own.norm_attention.state_dict())
            other.norm2.load_state_dict(own.norm_mlp.state_dict())
        observation = torch.randn(5, 6, 3)
        mask = nn.Transformer.generate_square_subsequent_mask(6)
        expected = peer(model.embed(observation) + model.position, mask=mask, is_causal=True)
        torch.testing.assert_close(model(observation), expected, rtol=1e-4, atol=1e-5)


def test_dropout_is_active_in_training_and_off_otherwise() -> None:
    model, observation = decoder(dropout=0.5), torch.randn(2, 6, 3)
    assert not torch.equal(model.train()(observation), model(observation))
    assert torch.equal(model.eval()(observation), model(observation))


def test_initial_scales_are_gpt2s() -> None:
    model = Decoder(20, DecoderShape(window=10, depth=8, heads=4, width=128, dropout=0.0))
    block = model.blocks[3]
    assert block.expand.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.contract.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert block.attention.out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert block.expand.bias.abs().max() == 0


def test_a_mlp_is_orthogonal_at_first() -> None:
    weight = MLP(4, 16, 3)[2].weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(16), rtol=0, atol=1e-5)


def goal_decoder(depth: int, goals: int, goal_as: str = "tokens") -> Decoder:
    torch.manual_seed(0)
    shape = DecoderShape(window=6, depth=depth, heads=2, width=8, dropout=0.5, goal_steps=goals)
    model = Decoder(3, shape, goal_inputs=2, goal_as=goal_as)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize(("goals", "goal_as"), [(0, "tokens"), (2, "tokens"), (2, "features")])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("length", [1, 4, 6])
def test_the_last_position_alone_is_the_last_of_all(goals: int, goal_as: str, depth: int, length: int) -> None:
    """With gradients through the modules, without them through `newest`."""
    model, observation = goal_decoder(depth, goals, goal_as), torch.randn(5, length, 3)
    goal = torch.randn(5, goals, 2) if goals else None
    expected = model(observation, goal)[:, -1].detach()
    torch.testing.assert_close(model.last(observation, goal), expected, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(model.last(observation, goal), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_goals_as_features_are_goals_joined_with_every_observation() -> None:
    """A decoder of wider observations is the same function; no token and no position is a goal's."""
    model, observation, goal = goal_decoder(2, 2, "features"), torch.randn(5, 4, 3), torch.randn(5, 2, 2)
    wide = Decoder(3 + 2 * 2, DecoderShape(window=6, depth=2, heads=2, width=8, dropout=0.5)).eval()
    values = model.state_dict()
    values["embed.weight"] = torch.cat([values["embed.weight"], values.pop("embed_goal.weight")], dim=1)
    values["embed.bias"] = values["embed.bias"] + values.pop("embed_goal.bias")
    wide.load_state_dict(values)
    joined = torch.cat([observation, goal.flatten(1)[:, None].expand(-1, 4, -1)], dim=2)
    torch.testing.assert_close(model(observation, goal), wide(joined), rtol=1e-5, atol=1e-5)
    assert model(observation, goal).shape == (5, 4, 8)
    assert not torch.allclose(model(observation, goal), model(observation, goal.flip(1)))


@pytest.mark.parametrize("change", ["step", "load", "copy", "move"])
@torch.no_grad()
def test_the_last_position_follows_the_weights(change: str) -> None:
    """`Decoder.weights` and `MLP.products` are the parameters, not copies of them."""
    model, head = goal_decoder(2, 0), MLP(8, 16, 3)
    model.last(torch.randn(5, 6, 3))
    if change == "step":
        for parameter in [*model.parameters(), *head.parameters()]:
            parameter.mul_(1.5)
    if change == "load":
        other, other_head = decoder(), MLP(8, 16, 3)
        model.load_state_dict(other.state_dict())
        head.load_state_dict(other_head.state_dict())
    if change == "copy":
        old = model, head
        model, head = copy.deepcopy(old)
        for parameter in [*old[0].parameters(), *old[1].parameters()]:
            parameter.zero_()
    if change == "move":
        model, head = model.double(), head.double()
    observation = torch.randn(5, 6, 3, dtype=model.position.dtype)
    features = model.last(observation)
    torch.testing.assert_close(features, model(observation)[:, -1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head(features), nn.Sequential.forward(head, features))
    assert features.abs().sum() > 0


@torch.no_grad()
def test_what_acting_takes_apart_is_in_the_order_of_a_blocks_parameters() -> None:
    names = [name for name, _ in decoder().blocks[0].named_parameters()]
    assert names == [
        *("norm_attention.weight", "norm_attention.bias", "attention.qkv.weight", "attention.qkv.bias"),
        *("attention.out.weight", "attention.out.bias", "norm_mlp.weight", "norm_mlp.bias"),
        *("expand.weight", "expand.bias", "contract.weight", "contract.bias"),
    ]


def test_a_single_position_is_attended_to_as_by_attention() -> None:
    """Without queries and keys: the weights of one position are 1; gradients too."""
    block, x = goal_decoder(1, 0).blocks[0].attention, torch.randn(5, 1, 8, requires_grad=True)
    q, k, v = block._split(block.qkv(x), 3)
    expected = block.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    for y in (block(x), block.last(x)):
        torch.testing.assert_close(y, expected)
    own, theirs = (torch.autograd.grad(y.square().sum(), [x, *block.parameters()]) for y in (block(x), expected))
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [2, 5, SHORT, SHORT + 1])
@pytest.mark.parametrize("seen", ["all", "causal", "newest"])
def test_attention_is_torchs_with_and_without_gradients(length: int, seen: str) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, length, 4, requires_grad=True) for _ in range(3))
    asked = q[:, :, -1:] if seen == "newest" else q
    expected = nn.functional.scaled_dot_product_attention(asked, k, v, is_causal=seen == "causal")
    y = attended(asked, k, v, causal=seen == "causal")
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    own, theirs = (torch.autograd.grad(value.square().sum(), [q, k, v]) for value in (y, expected))
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(attended(asked, k, v, causal=seen == "causal"), expected)


def test_a_mlp_is_the_sequence_of_its_layers() -> None:
    head, x = MLP(4, 16, 3), torch.randn(7, 4, requires_grad=True)
    own, theirs = head(x), nn.Sequential.forward(head, x)
    assert torch.equal(own, theirs)
    gradients = [torch.autograd.grad(y.square().sum(), [x, *head.parameters()]) for y in (own, theirs)]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_tensors_are_copies_and_restore_is_their_inverse() -> None:
    one, two = decoder(), decoder(depth=2)
    values = tensors(one)
    with torch.no_grad():
        one.position.add_(1.0)
    restore(two, values, component="prior")
    assert not np.array_equal(values["position"], tensors(one)["position"])
    assert all(np.array_equal(values[name], value) for name, value in tensors(two).items())


def test_submodules_can_be_left_out() -> None:
    assert not any(name.startswith("blocks") for name in tensors(decoder(), without=("blocks",)))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda v: v.pop("position"), "prior: tensor 'position' is missing"),
        (lambda v: v.update(spare=np.zeros(1)), "prior: unknown tensor 'spare'"),
        (lambda v: v.update(position=np.zeros((5, 8), np.float32)), r"'position': expected .*\(6, 8\), got .*\(5, 8\)"),
        (lambda v: v.update(position=np.zeros((6, 8))), "expected torch.float32 .*, got torch.float64"),
        (
            lambda v: v.update(position=np.full((6, 8), np.nan, np.float32)),
            "'position' holds values that are not finite",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(fault, message: str) -> None:
    values = tensors(decoder())
    fault(values)
    with pytest.raises(BundleError, match=message):
        restore(decoder(), values, component="prior")
