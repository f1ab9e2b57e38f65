"""The decoder: causal, position-aware, parity with torch's own transformer; tensors in and out of modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vqbet.contract import BundleError
from vqbet.nets import MLP, Decoder, restore, tensors


def decoder(dropout: float = 0.0, depth: int = 2) -> Decoder:
    torch.manual_seed(0)
    return Decoder(3, window=6, depth=depth, heads=2, width=8, dropout=dropout)


def test_a_position_sees_no_later_observation() -> None:
    model, observation = decoder().eval(), torch.randn(4, 6, 3)
    changed = observation.clone()
    changed[:, 4:] += 1.0
    before, after = model(observation), model(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_a_hidden_observation_is_not_seen() -> None:
    model, observation = decoder().eval(), torch.randn(4, 6, 3)
    visible = torch.ones(6, 6).tril().bool()
    visible[3:, 2] = False
    changed = observation.clone()
    changed[:, 2] += 1.0
    visible = visible.expand(4, 1, 6, 6)
    torch.testing.assert_close(model(observation, visible=visible)[:, 3:], model(changed, visible=visible)[:, 3:])


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
    model = Decoder(20, window=10, depth=8, heads=4, width=128, dropout=0.0)
    block = model.blocks[3]
    assert block.expand.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.contract.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert block.attention.out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert block.expand.bias.abs().max() == 0


def test_a_mlp_is_orthogonal_at_first() -> None:
    weight = MLP(4, 16, 3)[2].weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(16), rtol=0, atol=1e-5)


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
