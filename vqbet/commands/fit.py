"""Training of a policy from demonstrations in memory, in one call: `vqbet.fit`. No project, no registry, no gate.

Uses the same parts in the same order as the stages tokenizer, prior and bundle.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, final, get_args

import numpy as np
import torch
from jaxtyping import Float

from vqbet import bundle
from vqbet.commands import console
from vqbet.contract import LEAST_TEMPERATURE, ConfigError, Demonstrations, Spec, TrainingError
from vqbet.demos.store import schema
from vqbet.demos.windows import Windows, complete_chunks
from vqbet.environment import threads
from vqbet.models.normalizer import Normalizer
from vqbet.models.prior import Objective, Prior, PriorShape
from vqbet.models.tokenizer import Tokenizer, TokenizerShape
from vqbet.policies import envelope
from vqbet.policies.actor import Actor, Execute
from vqbet.policies.vqbet import VQBeT
from vqbet.serving.session import Session
from vqbet.stages import code_version
from vqbet.stages.progress import Watch
from vqbet.training import loop
from vqbet.training.recipe import Recipe, seed_everything

FROM_ZERO = ("seed", "tokenizer_steps")  # whole numbers that may be 0


@dataclass(frozen=True, kw_only=True)
class Options:
    """Parameters of `fit`. The defaults are the recipe of params.yaml for Push-T.

    tokenizer_steps: 0 for a fifth of the prior's steps. docs/params.md describes the other fields.
    """

    chunk: int
    steps: int
    seed: int
    layers: int = 2
    codes: int = 16
    latent: int = 128
    hidden: int = 128
    tokenizer_steps: int = 0
    tokenizer_batch: int = 1024
    tokenizer_lr: float = 1e-3
    window: int = 1
    depth: int = 4
    heads: int = 4
    width: int = 128
    dropout: float = 0.1
    batch: int = 256
    lr: float = 2e-3
    weight_decay: float = 1e-2
    ema: float = 0.99
    temperature: float = 0.7
    execute: Execute = "chunk"


def fit(
    demos: Demonstrations, *, chunk: int = 5, steps: int = 8000, seed: int = 0, quiet: bool = False, **options: Any
) -> FittedPolicy:
    """Train a tokenizer and a prior on demonstrations and return the policy, ready to act.

    chunk: number H of future actions planned at once. steps: training steps of the prior. quiet: show no progress on
    the terminal. options: fields of Options. Equal arguments return an equal policy on an equal machine. The caller's
    random number generators keep their state.

    Raises ConfigError for an option that does not exist or has no meaning, StoreError where `demos` is malformed, and
    TrainingError where it holds too little or a number is not finite.
    """
    chosen = _checked({"chunk": chunk, "steps": steps, "seed": seed, **options})
    schema.refuse_spec(demos.spec, "demonstrations")
    schema.refuse_malformed(demos, "demonstrations")
    chunks = complete_chunks(demos, chunk)
    _refuse_few(demos, chunks, chosen)
    watch = Watch() if quiet else console.watch()
    with _own_randomness(seed), threads.of(threads.training()), tempfile.TemporaryDirectory() as scratch:
        tokenizer = _tokenizer(demos, chunks, chosen, watch, Path(scratch))
        prior, history = _prior(demos, tokenizer, chosen, watch, Path(scratch))
        actor = Actor(demos.spec, VQBeT(prior, temperature=chosen.temperature), execute=chosen.execute)
        windows = Windows(demos, window=chosen.window, chunk=chosen.chunk)
        guard = envelope.component(actor, [demos], demos, windows)
        folder = Path(scratch) / "policy"
        provenance = {"code": code_version.digest(__name__), "data": _digest(demos), "params": asdict(chosen)}
        bundle.write(
            folder,
            kind="vqbet",
            spec=demos.spec,
            arguments=actor.arguments(),
            components={**actor.components(), "guard": guard},
            provenance=provenance,
        )
        return FittedPolicy(folder, health=tokenizer.health(chunks), history=history)


@final
class FittedPolicy:
    """Policy returned by `fit`. Acts from the same bundle that `save` writes.

    digest: digest of the bundle. health: reconstruction error and code usage of the tokenizer on the demonstrations,
    see `Tokenizer.health`. history: curves of the prior's training, about 200 rows.
    """

    def __init__(self, folder: Path, *, health: Mapping[str, Any], history: list[dict[str, float]]) -> None:
        self._bundle = bundle.read(folder)
        self._session = Session(folder, self._bundle.digest)
        self._session.start(0)
        self.health, self.history = health, history

    @property
    def digest(self) -> str:
        return self._bundle.digest

    @property
    def spec(self) -> Spec:
        return self._bundle.spec

    def start(self, seed: int) -> None:
        """Begin an episode. Without a call, `act` begins an episode with seed 0. Raises as `Session.start`."""
        self._session.start(seed)

    def act(self, observation: Float[np.ndarray, " D"]) -> Float[np.ndarray, " A"]:
        """Return the action for this control step in physical units. Raises as `Session.act`."""
        return self._session.act(observation)

    def save(self, folder: str | Path) -> str:
        """Write the bundle to `folder`, replacing an existing one, and return its digest. Raises BundleError."""
        packed = self._bundle
        return bundle.write(
            Path(folder),
            kind=packed.kind,
            spec=packed.spec,
            arguments=packed.arguments,
            components=packed.components,
            provenance=packed.provenance,
        )


def _tokenizer(
    demos: Demonstrations, chunks: Float[np.ndarray, "M H A"], chosen: Options, watch: Watch, scratch: Path
) -> Tokenizer:
    shape = TokenizerShape(chosen.chunk, chosen.layers, chosen.codes, chosen.latent, chosen.hidden)
    tokenizer = Tokenizer(Normalizer.fit(demos.action, demos.spec.action), shape)
    tokenizer.initialise(chunks, torch.Generator().manual_seed(chosen.seed))
    recipe = Recipe(
        steps=chosen.tokenizer_steps or max(1, chosen.steps // 5),
        batch=chosen.tokenizer_batch,
        lr=chosen.tokenizer_lr,
        warmup=0,
        min_lr=1.0,
        weight_decay=1e-4,
        clip=10.0,
        ema=0.0,
        seed=chosen.seed,
    )
    _train(tokenizer, Windows(demos, window=1, chunk=chosen.chunk, pictures=False), recipe, watch, scratch)
    return tokenizer.eval()


def _prior(
    demos: Demonstrations, tokenizer: Tokenizer, chosen: Options, watch: Watch, scratch: Path
) -> tuple[Prior, list[dict[str, float]]]:
    """Return the trained prior and its history. Codes are drawn as often as recorded, see docs/log.md, Push-T."""
    prior = Prior(
        tokenizer,
        Normalizer.fit(demos.observation, demos.spec.observation),
        PriorShape(
            window=chosen.window,
            depth=chosen.depth,
            heads=chosen.heads,
            width=chosen.width,
            dropout=chosen.dropout,
            head_hidden=0,
            sequential=True,
        ),
        Objective(focal_gamma=0.0, offset_target="true", supervise="last"),
    )
    recipe = Recipe(
        steps=chosen.steps,
        batch=chosen.batch,
        lr=chosen.lr,
        warmup=chosen.steps // 20,
        min_lr=0.01,
        weight_decay=chosen.weight_decay,
        clip=1.0,
        ema=chosen.ema,
        seed=chosen.seed,
    )
    history = _train(prior, Windows(demos, window=chosen.window, chunk=chosen.chunk), recipe, watch, scratch)
    return prior.eval(), history


def _train(
    model: Tokenizer | Prior, windows: Windows, recipe: Recipe, watch: Watch, scratch: Path
) -> list[dict[str, float]]:
    """Train one of the two models and return its history. Its checkpoints are deleted with `scratch`."""
    name = type(model).__name__.lower()
    with watch.bar(name) as advance:
        trained = loop.train(
            model,
            windows.gather,
            len(windows),
            recipe,
            folder=scratch / f"{name} checkpoints",
            fingerprint=name,
            track=watch.track,
            progress=advance,
        )
    return trained.history


def _checked(given: Mapping[str, Any]) -> Options:
    """Return the options. Raises ConfigError for an unknown name, or a value out of bounds."""
    known = {field.name: field.type for field in fields(Options)}
    if unknown := sorted(given.keys() - known.keys()):
        raise ConfigError(f"{unknown[0]}: no option of fit; there are {', '.join(known)}")
    for name, value in given.items():
        number = isinstance(value, int) or (known[name] == "float" and isinstance(value, float))
        if known[name] in ("int", "float") and (isinstance(value, bool) or not number):
            raise ConfigError(f"{name}: expected a number of type {known[name]}, got {value!r}")
    chosen = Options(**given)
    for name, least in {field.name: 0 if field.name in FROM_ZERO else 1 for field in fields(Options)}.items():
        value = getattr(chosen, name)
        if known[name] == "int" and value < least:
            raise ConfigError(f"{name}: expected {least} or more, got {value}")
        if known[name] == "float" and not 0 <= value < math.inf:
            raise ConfigError(f"{name}: expected a finite number that is not negative, got {value}")
    for name in ("dropout", "ema"):
        if not getattr(chosen, name) < 1:
            raise ConfigError(f"{name}: expected a number below 1, got {getattr(chosen, name)}")
    if chosen.execute not in get_args(Execute):
        raise ConfigError(f"execute: expected one of {', '.join(get_args(Execute))}, got {chosen.execute!r}")
    if chosen.temperature < LEAST_TEMPERATURE:
        raise ConfigError(f"temperature: expected {LEAST_TEMPERATURE:g} or more, got {chosen.temperature}")
    if chosen.width % chosen.heads:
        raise ConfigError(f"width: expected a multiple of heads, which is {chosen.heads}, got {chosen.width}")
    return chosen


def _refuse_few(demos: Demonstrations, chunks: Float[np.ndarray, "M H A"], chosen: Options) -> None:
    """Raise TrainingError where there are fewer distinct chunks than codes, since chunks initialise the codebooks."""
    found = len(np.unique(chunks.reshape(len(chunks), chosen.chunk * demos.action.shape[1]), axis=0))
    if found < chosen.codes:
        raise TrainingError(
            f"codes: {chosen.codes} codes, but the episodes, the longest of {demos.lengths.max()} steps, hold {found} "
            f"distinct chunks of {chosen.chunk} actions; record more, or use a shorter chunk or fewer codes"
        )


def _digest(demos: Demonstrations) -> str:
    """Return the store's digest where the demonstrations come from a store, else a sha256 of spec and arrays."""
    if demos.digest:
        return demos.digest
    total = hashlib.sha256(json.dumps(demos.spec.to_json(), sort_keys=True).encode())
    for array in (demos.observation, demos.action, demos.episode_ends):
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seed everything inside the block, then restore the caller's random state and torch's settings."""
    deterministic, states = torch.are_deterministic_algorithms_enabled(), (random.getstate(), np.random.get_state())
    with torch.random.fork_rng():
        seed_everything(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.use_deterministic_algorithms(deterministic)
