"""The tokenizer with every kind of quantiser: training, health, round trips, under a prior, and as a stage."""

from __future__ import annotations

import csv
import itertools
import json
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.synthetic import synthetic
from vqbet import bundle, config
from vqbet.contract import BundleError, ConfigError, Demonstrations, TrainingError
from vqbet.demos import store
from vqbet.demos.windows import complete_chunks
from vqbet.models.normalizer import Normalizer
from vqbet.models.prior import Prior, PriorShape, pick
from vqbet.models.quantizers import QUANTIZERS
from vqbet.models.tokenizer import Tokenizer, TokenizerShape, check_health
from vqbet.stages import tokenizer as stage
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

SHIPPED = Path(__file__).resolve().parents[2] / "params.yaml"
LAYERS = {"residual": 2, "kmeans": 2, "fsq": 2}  # of each kind, where a test needs but one number
GOLDEN = Path(__file__).parents[1] / "golden" / "tokenizer.json"
STEPS = 200  # a training that ends healthy
CHANNELS = ["left", "right"]
LIMITS = {"max_mean_error": 0.1, "max_p99_error": 0.5, "min_used": 0.5}


def chunks(count: int = 600, chunk: int = 3, seed: int = 0) -> np.ndarray:
    """Straight pushes in one of eight directions, with noise, in pixels: (N, H, 2)."""
    rng = np.random.default_rng(seed)
    angle = rng.integers(0, 8, count) * np.pi / 4 + rng.normal(0, 0.05, count)
    way = np.arange(1, chunk + 1)[None, :, None] * np.stack([np.cos(angle), np.sin(angle)], 1)[:, None]
    return (256 + 50 * way + rng.normal(0, 0.5, (count, chunk, 2))).astype(np.float32)


def batches(data: np.ndarray) -> dict[str, np.ndarray]:
    return {"action": data, "valid": np.ones(data.shape[:2], bool)}


def build(data: np.ndarray, kind: str = "residual", layers: int = 2, **settings: float) -> Tokenizer:
    torch.manual_seed(0)
    shape = TokenizerShape(chunk=data.shape[1], layers=layers, codes=8, latent=16, hidden=32, kind=kind)
    tokenizer = Tokenizer(Normalizer.fit(data), shape, **settings)
    tokenizer.initialise(data, torch.Generator().manual_seed(0))
    return tokenizer


def train(tokenizer: Tokenizer, data: np.ndarray, steps: int) -> Tokenizer:
    if not tokenizer.trainable:
        return tokenizer.eval()
    optimizer = torch.optim.Adam(tokenizer.parameters(), 3e-3)
    for _ in range(steps):
        loss, _ = tokenizer.train().loss(batches(data))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tokenizer.eval()


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return of_kind("residual")


@cache
def of_kind(kind: str) -> Tokenizer:
    return train(build(chunks(), kind, LAYERS[kind]), chunks(), STEPS)


# --- the tokenizer ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_makes_it_healthy(trained: Tokenizer) -> None:
    health = trained.health(chunks(seed=1))
    check_health(health, CHANNELS, **LIMITS)
    assert max(health["mean_error"]) < 5  # px
    assert health["codes_used"][0] == 8
    json.dumps(health, allow_nan=False)


def test_encode_and_decode_are_inverse_on_decoded_chunks(trained: Tokenizer) -> None:
    data = trained.normalizer.normalize(torch.from_numpy(chunks()))
    once = trained.decode(trained.encode(data))
    assert (once - data).abs().mean() < 0.05
    assert once.shape == data.shape


@pytest.mark.slow
def test_one_action_chunks_of_two_channels_work() -> None:
    data = chunks(chunk=1)
    health = train(build(data), data, STEPS).health(data)
    check_health(health, CHANNELS, **LIMITS)
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


# --- every kind ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=QUANTIZERS)
def each(request: pytest.FixtureRequest) -> Tokenizer:
    return of_kind(request.param)


@pytest.mark.slow
def test_every_kind_becomes_healthy(each: Tokenizer) -> None:
    health = each.health(chunks(seed=1))
    check_health(health, CHANNELS, max_mean_error=0.4, max_p99_error=2.0, min_used=0.5)
    assert health["trained_steps"] == (STEPS if each.trainable else 1)
    assert np.shape(health["usage"]) == (each.shape.layers, 8)
    json.dumps(health, allow_nan=False)


@pytest.mark.slow
def test_components_of_every_kind_and_back_are_bitwise(each: Tokenizer) -> None:
    again = Tokenizer.from_components(json.loads(json.dumps(each.arguments())), each.components())
    data = each.normalizer.normalize(torch.from_numpy(chunks()))
    assert torch.equal(again.encode(data), each.encode(data))
    assert torch.equal(again.decode(again.encode(data)), each.decode(each.encode(data)))
    assert again.state_dict().keys() == each.state_dict().keys()
    assert all(torch.equal(value, each.state_dict()[name]) for name, value in again.state_dict().items())


def test_arguments_older_than_kinds_mean_residual(trained: Tokenizer) -> None:
    arguments = {name: value for name, value in trained.arguments().items() if name != "kind"}
    for older in (arguments, {**arguments, "kind": "vq"}):
        assert Tokenizer.from_components(older, trained.components()).shape == trained.shape


def test_an_unknown_kind_is_refused(trained: Tokenizer) -> None:
    expected = "tokenizer: expected a kind of residual, kmeans, fsq, got 'rvq'"
    with pytest.raises(BundleError, match=expected):
        Tokenizer.from_components({**trained.arguments(), "kind": "rvq"}, trained.components())
    with pytest.raises(ValueError, match=expected):
        Tokenizer(trained.normalizer, replace(trained.shape, kind="rvq"))


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "levels"), [(4, 2), (4, 3), (4, 4), (2, 64)])
def test_finite_scalars_learn_with_few_levels_and_with_many(layers: int, levels: int) -> None:
    data = chunks()
    torch.manual_seed(0)
    shape = TokenizerShape(chunk=3, layers=layers, codes=levels, latent=1, hidden=32, kind="fsq")
    model = Tokenizer(Normalizer.fit(data), shape)
    model.initialise(data, torch.Generator().manual_seed(0))
    health = train(model, data, 100).health(data)
    assert max(health["mean_error_over_std"]) < 0.5
    assert min(health["codes_used"]) >= min(levels, 20)


def test_bins_stay_as_they_were_fitted() -> None:
    model = build(chunks(), "kmeans").train()
    before = model.quantizer.codebooks.clone()
    loss, metrics = model.loss(batches(chunks()))
    assert torch.equal(model.quantizer.codebooks, before)
    assert not list(model.parameters())
    assert loss == metrics["reconstruction"]


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize(("kind", "layers"), list(itertools.product(["residual", "kmeans", "fsq"], [1, 2, 3, 4])))
def test_a_prior_learns_and_draws_over_every_kind(kind: str, layers: int, sequential: bool) -> None:
    window, data = 3, chunks(64, chunk=4)
    model = train(build(chunks(200, chunk=2), kind, layers), chunks(200, chunk=2), 2)
    shape = PriorShape(
        window=window, depth=1, heads=2, width=16, head_hidden=16, dropout=0.0, sequential=sequential
    )  # fmt: skip
    prior = Prior(model, Normalizer.fit(np.array([[-3.0] * 5, [3.0] * 5], np.float32)), shape)
    optimizer = torch.optim.Adam(prior.parameters(), 1e-3)
    observation = torch.randn(64, window, 5)
    losses = []
    for _ in range(2):
        loss, metrics = prior.train().loss({"observation": observation, **batches(data)})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert {f"accuracy_{layer}" for layer in range(layers)} <= metrics.keys()
    assert (metrics["secondary_loss"] > 0) == (layers > 1)
    with torch.no_grad():
        features = prior.eval().features(observation)[:, -1]
        codes = prior.draw(features, lambda _layer, logits: pick(logits, torch.rand(len(logits))))
        chunk = prior.chunk(features, codes)
    assert codes.shape == (64, layers)
    assert 0 <= codes.min() <= codes.max() < 8
    assert chunk.shape == (64, 2, 2)
    assert torch.isfinite(chunk).all()


# --- the stage -------------------------------------------------------------------------------------------------------


def section(**changes: object) -> config.TokenizerParams:
    """The shipped parameters, small."""
    small = {"codes": 8, "latent": 16, "hidden": 16, "batch": 128, "steps": 60, "lr": 3e-3, **changes}
    values = config.task(SHIPPED, "blockpush").tokenizer.model_dump()
    lax = {"max_mean_error": 0.9, "max_p99_error": 3.0, "min_used": 0.3}
    return config.TokenizerParams(**{**values, "health": lax, **small})


@pytest.mark.slow
@pytest.mark.parametrize("kind", QUANTIZERS)
def test_the_stage_writes_a_bundle_of_every_kind_and_repeats_itself(kind: str, tmp_path: Path) -> None:
    paths, seen = Paths(tmp_path, "blockpush"), []
    store.write(paths.store, synthetic())
    params = config.task(SHIPPED, "blockpush").model_copy(
        update={"tokenizer": section(kind=kind, layers=LAYERS[kind], chunk=3)}
    )
    metrics = stage.run(paths, params, Watch(track=lambda step, numbers: seen.append((step, numbers))))
    made = bundle.read(paths.tokenizer)
    model = Tokenizer.from_components(made.arguments, made.components)
    assert model.trained_steps > 0
    assert (model.shape.kind, model.shape.layers) == (kind, LAYERS[kind])
    assert metrics["mean_error_over_std"] < 0.9
    with paths.plot("tokenizer").open() as file:
        rows = list(csv.DictReader(file))
    assert {"step", "lr", "loss", "reconstruction", "commitment", "codes_used"} <= set(rows[0])
    assert rows[-1]["step"] == ("60" if model.trainable else "1")
    assert seen
    assert paths.metrics("tokenizer").is_file()
    assert stage.run(paths, params, Watch()) == metrics
    assert bundle.read(paths.tokenizer).digest == made.digest


def judged(tmp_path: Path, **limits: float) -> tuple[Paths, int]:
    """Run the stage under these limits; returns also how many training steps it took."""
    paths, at = Paths(tmp_path, "blockpush"), list[int]()
    if not paths.store.exists():
        store.write(paths.store, synthetic())
    chosen = section(health=section().health.model_dump() | limits)
    params = config.task(SHIPPED, "blockpush").model_copy(update={"tokenizer": chosen})
    stage.run(paths, params, Watch(bar=lambda _: nullcontext(lambda done, total, numbers: at.append(done))))
    return paths, at[-1] - at[0]


@pytest.mark.slow
def test_other_limits_of_health_judge_again_and_train_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"mean error over standard deviation is target_0 "):
        judged(tmp_path, max_mean_error=1e-6)
    assert not Paths(tmp_path, "blockpush").tokenizer.exists()
    paths, steps = judged(tmp_path)
    assert steps == 0, "what was refused is judged again by looser limits"
    made = bundle.read(paths.tokenizer)
    with pytest.raises(TrainingError, match="p99 error"):
        judged(tmp_path, max_p99_error=1e-6)
    assert judged(tmp_path, max_p99_error=4.0)[1] == 0, "what was accepted is judged again by others"
    assert bundle.read(paths.tokenizer).digest == made.digest, "no prior is trained again for a limit"
    assert judged(tmp_path, max_p99_error=4.0)[1] == 60, "a run that only a person asked for trains"
    assert bundle.read(paths.tokenizer).digest == made.digest


def few(chunks_: int) -> Demonstrations:
    """Demonstrations whose actions take so many different values."""
    demos = synthetic(4)
    action = np.zeros_like(demos.action)
    action[:, 0] = np.arange(len(action)) % chunks_
    return replace(demos, action=-action)  # with zeros of both signs


@pytest.mark.parametrize("kind", ["residual", "kmeans"])
def test_more_codes_than_distinct_chunks_are_refused(kind: str) -> None:
    chosen = section(kind=kind, layers=1, chunk=1)
    stage.refuse_unfit("blockpush", chosen, few(8))
    with pytest.raises(TrainingError, match=r"blockpush\.tokenizer\.codes: 8 codes for 7 distinct chunks of data"):
        stage.refuse_unfit("blockpush", chosen, few(7))


@pytest.mark.slow
@pytest.mark.parametrize("distinct", [2, 4])
def test_levels_need_no_distinct_chunks(distinct: int, tmp_path: Path) -> None:
    """Eight levels, of which a few chunks need but some: the stage fits them, and each comes back from its own."""
    used = {"max_mean_error": 0.9, "max_p99_error": 3.0, "min_used": distinct / 8}  # of 8 levels, no more can be in use
    demos, chosen = few(distinct), section(kind="fsq", layers=2, chunk=1, steps=STEPS, health=used)
    with pytest.raises(TrainingError, match=f"8 codes for {distinct} distinct chunks"):
        stage.refuse_unfit("blockpush", section(kind="kmeans", layers=2, chunk=1), demos)
    stage.refuse_unfit("blockpush", chosen, demos)
    tokenizer = stage.fit(chosen, demos, wanted=(), folder=tmp_path, fingerprint="few", watch=Watch()).tokenizer
    health = tokenizer.health(complete_chunks(demos, 1))
    assert health["combinations_used"] == distinct
    assert max(health["mean_error_over_std"]) < 0.1


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_a_chunk_longer_than_every_episode_is_refused_before_any_training(kind: str, tmp_path: Path) -> None:
    demos = synthetic(4)
    longest = int(demos.lengths.max())
    chosen = section(kind=kind, layers=1, chunk=longest + 1, codes=2)
    expected = rf"blockpush\.tokenizer\.chunk: {longest + 1} actions, but the longest of 4 episodes has {longest}"
    with pytest.raises(TrainingError, match=expected):
        stage.refuse_unfit("blockpush", chosen, demos)
    stage.refuse_unfit("blockpush", section(kind=kind, layers=1, chunk=longest - 1, codes=2), demos)
    paths = Paths(tmp_path, "blockpush")
    store.write(paths.store, demos)
    params = config.task(SHIPPED, "blockpush").model_copy(update={"tokenizer": chosen})
    with pytest.raises(TrainingError, match=expected):
        stage.run(paths, params, Watch())
    assert not paths.artifacts.exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tokenizer.kind": "vq"}, r"tokenizer\.kind: .* got 'vq'"),
        ({"tokenizer.kind": "rvq"}, r"tokenizer\.kind: .* got 'rvq'"),
        ({"tokenizer.layers": 5}, r"tokenizer\.layers: .* got 5"),
        ({"tokenizer.codes": 1}, r"tokenizer\.codes: .* got 1"),
    ],
)
def test_params_that_no_kind_can_have_are_refused(tmp_path: Path, changes: dict, sentence: str) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    for key, value in changes.items():
        name = key.split(".")[1]
        old = next(line for line in text.splitlines() if line.startswith(f"    {name}:"))
        text = text.replace(old, f"    {name}: {value}", 1)
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{path}: blockpush\.{sentence}"):
        config.task(path, "blockpush")


# --- health: each limit, and the untrained one -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"trained_steps": 0}, "never trained"),
        (
            {"mean_error_over_std": [0.01, 0.2]},
            "mean error over standard deviation is right 0.200, expected at most 0.1",
        ),
        ({"mean_error_over_std": [float("nan"), 0.0]}, "is left nan"),
        ({"p99_error_over_std": [0.6, 0.1]}, "p99 error over standard deviation is left 0.600, expected at most 0.5"),
        ({"codes_used": [8, 3]}, "layer 1 uses 3 of 8 codes, expected at least 50%"),
    ],
)
def test_an_unhealthy_tokenizer_is_refused(trained: Tokenizer, fault: dict, sentence: str) -> None:
    with pytest.raises(TrainingError, match=sentence):
        check_health({**trained.health(chunks()), **fault}, CHANNELS, **LIMITS)


def test_a_refusal_names_five_channels_and_counts_the_others() -> None:
    health = {"trained_steps": 1, "codes": 8, "codes_used": [8], "mean_error_over_std": [0.5] * 9}
    names = [f"joint{number}" for number in range(9)]
    with pytest.raises(
        TrainingError, match=r"is joint0 0\.500, .*joint4 0\.500 and 4 more, expected at most 0\.1"
    ) as told:
        check_health(health | {"p99_error_over_std": [0.1] * 9}, names, **LIMITS)
    assert "\n" not in str(told.value)


def test_an_untrained_tokenizer_fails_its_health_check() -> None:
    with pytest.raises(TrainingError, match="never trained; mean error over standard deviation is left"):
        check_health(build(chunks()).health(chunks()), CHANNELS, **LIMITS)


def test_a_channel_that_never_moves_has_no_error() -> None:
    data = chunks()
    data[:, :, 1] = 7.0
    health = train(build(data), data, 100).health(data)
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
