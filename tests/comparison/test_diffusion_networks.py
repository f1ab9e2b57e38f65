"""The two networks of Diffusion Policy: sizes, conditions, causality, and parity with torch's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.comparison.diffusion_model import BOTH
from vqbet.comparison.policies.diffusion import sinusoids
from vqbet.comparison.policies.diffusion_cnn import CNNShape, Convolution, ResidualBlock, UNet
from vqbet.comparison.policies.diffusion_transformer import NoiseTransformer, TransformerShape
from vqbet.contract import TrainingError

T, H, D, A, G, C, B = 2, 8, 5, 2, 3, 4, 6


def network(kind: str, *, goal: bool = True, horizon: int = H, action: int = A) -> UNet | NoiseTransformer:
    torch.manual_seed(0)
    common = {"window": T, "horizon": horizon, "execute_steps": 1, "goal_steps": G if goal else 0}
    channels = (D, action, C if goal else 0)
    if kind == "cnn":
        return UNet(CNNShape(**common, width=8, levels=3, groups=2, step_width=16), channels)
    built = NoiseTransformer(TransformerShape(**common, depth=3, heads=4, width=32), channels).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # an untrained one hardly looks at anything
    return built


def inputs(horizon: int = H, action: int = A) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "noisy": torch.randn(B, horizon, action),
        "step": torch.randint(100, (B,)),
        "observation": torch.randn(B, T, D),
        "goal": torch.randn(B, G, C),
    }


@torch.no_grad()
def noise(net: UNet | NoiseTransformer, given: dict[str, torch.Tensor]) -> torch.Tensor:
    goal = given["goal"] if net_takes_goals(net) else None
    timed = net.timed(sinusoids(given["step"], net.step_width))
    return net(given["noisy"], timed, net.seen(given["observation"], goal))


def net_takes_goals(net: UNet | NoiseTransformer) -> bool:
    if isinstance(net, UNet):
        return net.film_seen.in_features == T * D + G * C
    return net.embed_goal is not None


def size(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_the_cnn_has_the_papers_size() -> None:
    """65.8 M on Push-T: a window of 2, 20 observed channels, 2 actions."""
    with torch.device("meta"):
        assert size(UNet(CNNShape(2, 16, 8), (20, 2, 0))) == pytest.approx(65.8e6, rel=1e-3)


def test_the_transformer_has_the_papers_size() -> None:
    """9.0 M: eight decoder layers of 16 width^2, the memory's MLP of 8 width^2, and small change."""
    count = size(NoiseTransformer(TransformerShape(2, 16, 8), (20, 2, 0)))
    assert count == pytest.approx(9.0e6, rel=5e-3)
    assert 136 * 256**2 < count < 137 * 256**2


@BOTH
@pytest.mark.parametrize("goal", [False, True])
@pytest.mark.parametrize(("horizon", "action"), [(4, 1), (8, 2), (16, 7)])
def test_shapes(kind: str, goal: bool, horizon: int, action: int) -> None:
    net = network(kind, goal=goal, horizon=horizon, action=action)
    assert noise(net, inputs(horizon, action)).shape == (B, horizon, action)


@BOTH
@pytest.mark.parametrize("name", ["step", "observation", "goal"])
def test_every_condition_reaches_every_action(kind: str, name: str) -> None:
    net, given = network(kind), inputs()
    changed = given | {name: given[name].flip(0) if name == "step" else given[name] + 1.0}
    moved = (noise(net, changed) - noise(net, given)).abs().amax(2)
    kept = given["step"] == changed["step"] if name == "step" else torch.zeros(B, dtype=torch.bool)
    assert (moved[~kept] > 1e-4).all()
    assert (moved[kept] == 0).all()


@BOTH
@pytest.mark.parametrize("place", [0, T - 1])
def test_the_whole_window_and_the_whole_goal_are_seen(kind: str, place: int) -> None:
    net, given = network(kind), inputs()
    for name in ("observation", "goal"):
        changed = given[name].clone()
        changed[:, place] += 1.0
        assert ((noise(net, given | {name: changed}) - noise(net, given)).abs().amax((1, 2)) > 1e-4).all()


@BOTH
def test_rows_do_not_see_one_another(kind: str) -> None:
    net, given = network(kind), inputs()
    alone = torch.cat([noise(net, {name: value[b : b + 1] for name, value in given.items()}) for b in range(B)])
    torch.testing.assert_close(alone, noise(net, given), rtol=0, atol=1e-5)


def reach(kind: str) -> torch.Tensor:
    """How far each noisy action (rows) moves what is said of each action (columns), (H, H)."""
    net, given = network(kind), inputs()
    before, moved = noise(net, given), []
    for place in range(H):
        changed = given["noisy"].clone()
        changed[:, place] += 1.0
        moved.append((noise(net, given | {"noisy": changed}) - before).abs().amax((0, 2)))
    return torch.stack(moved)


def test_later_noisy_actions_do_not_change_what_the_transformer_says_of_earlier_ones() -> None:
    moved, causal = reach("transformer"), torch.ones(H, H).triu().bool()
    assert (moved[~causal] == 0).all()
    assert (moved[causal] > 1e-5).all()


def test_every_noisy_action_changes_what_the_cnn_says_of_every_action() -> None:
    assert (reach("cnn") > 1e-6).all()


@torch.no_grad()
def test_the_transformer_is_torchs_decoder() -> None:
    """The same weights in nn.TransformerDecoder, over a memory of step, goals and observations put together at once."""
    net, given = network("transformer"), inputs()
    width, depth = net.step_width, len(net.layers)
    layer = nn.TransformerDecoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
    library = nn.TransformerDecoder(layer, depth, nn.LayerNorm(width)).eval()
    library.norm.load_state_dict(net.norm.state_dict())
    weights, biases = net.keys_values.weight.chunk(depth), net.keys_values.bias.chunk(depth)
    for own, theirs, weight, bias in zip(net.layers, library.layers, weights, biases, strict=True):
        pairs = [(own.norm_attention, theirs.norm1), (own.norm_memory, theirs.norm2), (own.norm_mlp, theirs.norm3)]
        pairs += [(own.expand, theirs.linear1), (own.contract, theirs.linear2)]
        pairs += [(own.attention.out, theirs.self_attn.out_proj), (own.out, theirs.multihead_attn.out_proj)]
        for mine, other in pairs:
            other.load_state_dict(mine.state_dict())
        theirs.self_attn.in_proj_weight.copy_(own.attention.qkv.weight)
        theirs.self_attn.in_proj_bias.copy_(own.attention.qkv.bias)
        theirs.multihead_attn.in_proj_weight.copy_(torch.cat([own.query.weight, weight]))
        theirs.multihead_attn.in_proj_bias.copy_(torch.cat([own.query.bias, bias]))
    step = sinusoids(given["step"], width)[:, None]
    tokens = torch.cat([step, net.embed_goal(given["goal"]), net.embed_observation(given["observation"])], dim=1)
    memory = net.encoder(tokens + net.position_memory)
    causal = nn.Transformer.generate_square_subsequent_mask(H)
    x = library(net.embed_action(given["noisy"]) + net.position, memory, tgt_mask=causal, tgt_is_causal=True)
    torch.testing.assert_close(noise(net, given), net.head(x), rtol=0, atol=1e-4)


def test_dropout_acts_in_training_alone() -> None:
    shape = TransformerShape(T, H, 1, depth=1, heads=2, width=16, dropout=0.5, goal_steps=G)
    net, given = NoiseTransformer(shape, (D, A, C)), inputs()
    assert not torch.equal(noise(net.train(), given), noise(net, given))
    assert torch.equal(noise(net.eval(), given), noise(net, given))


@torch.no_grad()
def test_a_block_scales_and_shifts_between_its_convolutions() -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(3, 8, kernel=5, groups=2), torch.randn(B, 3, H)
    scale, shift = torch.randn(B, 8), torch.randn(B, 8)
    hidden = torch.stack([scale[b][:, None] * block.first(x)[b] + shift[b][:, None] for b in range(B)])
    expected = block.second(hidden) + block.shortcut(x)
    torch.testing.assert_close(block(x, torch.cat([scale, shift], dim=1)[:, :, None]), expected)
    assert isinstance(ResidualBlock(8, 8, kernel=5, groups=2).shortcut, nn.Identity)


@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (3, 2), (3, 1), (1, 1)])
@pytest.mark.parametrize("rows", [1, 3, 40])
@torch.no_grad()
def test_few_rows_are_convolved_as_many_are(kernel: int, stride: int, rows: int) -> None:
    torch.manual_seed(0)
    own = Convolution(6, 10, kernel, stride=stride, padding=kernel // 2)
    library = nn.Conv1d(6, 10, kernel, stride=stride, padding=kernel // 2)
    library.load_state_dict(own.state_dict())
    x = torch.randn(rows, 6, H)
    torch.testing.assert_close(own(x), library(x))


def test_sinusoids_tell_steps_apart() -> None:
    """Section 3.5 of arXiv 1706.03762, with the last wavelength reached."""
    embedded = sinusoids(torch.arange(1000), 16).double()
    rates = 10_000 ** -(torch.arange(8) / 7)
    angles = torch.arange(1000)[:, None] * rates
    torch.testing.assert_close(embedded, torch.cat([angles.sin(), angles.cos()], dim=1).double(), rtol=0, atol=1e-3)
    assert (torch.cdist(embedded, embedded) + 9 * torch.eye(1000)).min() > 0.1


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        (CNNShape(T, 6, 1), "horizon 6: 3 levels halve it 2 times: expected a multiple of 4; take 8, or fewer levels"),
        (CNNShape(T, 8, 1, width=20), r"width 20 must be a multiple of groups \(8\)"),
        (CNNShape(T, 8, 1, kernel=4), "kernel 4 odd"),
        (CNNShape(T, 8, 1, step_width=3), "step_width 3 even"),
        (TransformerShape(T, 6, 1, width=66), r"width 66: expected an even multiple of heads \(4\)"),
        (TransformerShape(T, 6, 1, width=33, heads=3), r"width 33: expected an even multiple of heads \(3\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(shape: CNNShape | TransformerShape, sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        UNet(shape, (D, A, 0)) if isinstance(shape, CNNShape) else NoiseTransformer(shape, (D, A, 0))
