"""VQ-BeT as a policy: a history of observations per episode, codes drawn by that episode's seed, chunks executed.

Section 3.4 of VQ-BeT (arXiv 2403.03181). numpy in and out; only the last position of the window is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vqbet.contract import BundleError, Spec, WorldError
from vqbet.prior import Prior, pick
from vqbet.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Execution:
    """How codes are drawn and chunks executed.

    "first": predict at every step, take the chunk's first action. "chunk": take all H actions of a chunk, then predict
    again. "average": predict at every step, take the mean of what the last H chunks say about this step, over those
    with the same codes as the newest; chunks of other codes are other behaviours, and their mean is none.
    """

    execute: Literal["first", "chunk", "average"]
    temperature: float = 1.0
    argmax: bool = False


@final
class VQBeT:
    """A `contract.Policy`. The same observations and seeds give the same actions, bit for bit, on one machine.

    Actions are clamped to the limits of the spec's action channels. Raises BundleError where spec and models disagree.
    """

    def __init__(self, spec: Spec, prior: Prior, execution: Execution) -> None:
        for name, channels, expected in (
            ("observation", prior.normalizer.channels, len(spec.observation)),
            ("action", prior.tokenizer.normalizer.channels, len(spec.action)),
        ):
            if channels != expected:
                raise BundleError(f"normalizer: {name}: expected {expected} channels for {spec.task!r}, got {channels}")
        self.spec, self.execution = spec, execution
        self._prior = prior.eval()
        self._low = np.array([channel.low for channel in spec.action], np.float32)
        self._high = np.array([channel.high for channel in spec.action], np.float32)
        self.reset(np.zeros(0, np.int64))

    def reset(self, seeds: Int[np.ndarray, " E"]) -> None:
        episodes, chunk = len(seeds), self._prior.tokenizer.shape.chunk
        self._seeds = np.array(seeds, np.int64)
        self._steps = np.zeros(episodes, np.int64)  # actions given so far
        self._history = np.zeros((episodes, self._prior.shape.window, len(self.spec.observation)), np.float32)
        self._chunks = np.zeros((episodes, chunk, chunk, len(self.spec.action)), np.float32)  # newest first
        self._codes = np.full((episodes, chunk, self._prior.tokenizer.shape.layers), -1, np.int64)  # -1: no chunk yet

    def act(self, observation: Float[np.ndarray, "B D"], rows: Int[np.ndarray, " B"]) -> Float[np.ndarray, "B A"]:
        """Raises WorldError where the observation has another shape or is not finite."""
        self._observe(observation, rows)
        chunk = self._chunks.shape[1]
        age = self._steps[rows] % chunk if self.execution.execute == "chunk" else np.zeros(len(rows), np.int64)
        fresh = rows[age == 0]
        if len(fresh):
            self._predict(fresh)
        action = self._average(rows) if self.execution.execute == "average" else self._chunks[rows, 0, age]
        self._steps[rows] += 1
        return np.clip(action, self._low, self._high)

    def arguments(self) -> dict[str, Any]:
        """What `from_components` needs beside spec and tensors; JSON-clean."""
        return {
            "tokenizer": self._prior.tokenizer.arguments(),
            "prior": self._prior.arguments(),
            "execution": asdict(self.execution),
        }

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        """The tensors of "tokenizer", "prior" and "normalizer" (observation.* and action.*)."""
        tokenizer, prior = self._prior.tokenizer.components(), self._prior.components()
        statistics = {f"action.{name}": value for name, value in tokenizer["normalizer"].items()}
        statistics |= {f"observation.{name}": value for name, value in prior["normalizer"].items()}
        return {"tokenizer": tokenizer["tokenizer"], "prior": prior["prior"], "normalizer": statistics}

    @classmethod
    def from_components(
        cls, spec: Spec, arguments: Mapping[str, Any], components: Mapping[str, Mapping[str, np.ndarray]]
    ) -> VQBeT:
        """The exact inverse of `arguments` and `components`. Raises BundleError naming what does not fit."""
        if missing := {"tokenizer", "prior", "normalizer"} - components.keys():
            raise BundleError(f"vqbet policy: components missing: {', '.join(sorted(missing))}")
        statistics = {kind: _under(components["normalizer"], kind) for kind in ("action", "observation")}
        if unknown := sorted(set(components["normalizer"]) - {f"{k}.{n}" for k, v in statistics.items() for n in v}):
            raise BundleError(f"normalizer: unknown tensor {unknown[0]!r}")
        try:
            tokenizer = Tokenizer.from_components(
                arguments["tokenizer"],
                {"tokenizer": components["tokenizer"], "normalizer": statistics["action"]},
            )
            prior = Prior.from_components(
                arguments["prior"],
                {"prior": components["prior"], "normalizer": statistics["observation"]},
                tokenizer=tokenizer,
            )
            execution = Execution(**arguments["execution"])
        except (KeyError, TypeError) as error:
            raise BundleError(f"vqbet policy: arguments are not those of this version: {error}") from error
        return cls(spec, prior, execution)

    def _observe(self, observation: np.ndarray, rows: np.ndarray) -> None:
        expected = (len(rows), len(self.spec.observation))
        if observation.shape != expected:
            raise WorldError(f"vqbet policy: observation: expected shape {expected}, got {observation.shape}")
        if not np.isfinite(observation).all():
            row, channel = np.argwhere(~np.isfinite(observation))[0]
            name = self.spec.observation[channel].name
            raise WorldError(
                f"vqbet policy: observation {name!r} of episode {rows[row]} is {observation[row, channel]}"
            )
        first = self._steps[rows] == 0
        self._history[rows, :-1] = np.where(first[:, None, None], observation[:, None], self._history[rows, 1:])
        self._history[rows, -1] = observation

    @torch.inference_mode()
    def _predict(self, rows: Int[np.ndarray, " B"]) -> None:
        """Put a new chunk before the older ones of these episodes."""
        features = self._prior.features(torch.from_numpy(self._history[rows]))[:, -1]
        layers = self._codes.shape[2]
        uniform = torch.from_numpy(uniforms(self._seeds[rows], self._steps[rows], layers))

        def choose(layer: int, logits: Tensor) -> Tensor:
            if self.execution.argmax:
                return logits.argmax(1)
            return pick(logits / self.execution.temperature, uniform[:, layer])

        codes = self._prior.draw(features, choose)
        chunk = self._prior.tokenizer.normalizer.unnormalize(self._prior.chunk(features, codes))
        self._chunks[rows, 1:] = self._chunks[rows, :-1]
        self._codes[rows, 1:] = self._codes[rows, :-1]
        self._chunks[rows, 0] = chunk.numpy()
        self._codes[rows, 0] = codes.numpy()

    def _average(self, rows: Int[np.ndarray, " B"]) -> Float[np.ndarray, "B A"]:
        ages = np.arange(self._chunks.shape[1])
        overlapping = self._chunks[rows][:, ages, ages]  # (B, H, A): what the chunk of each age says about now
        agree = (self._codes[rows] == self._codes[rows, :1]).all(2)[:, :, None].astype(np.float32)  # (B, H, 1)
        return (overlapping * agree).sum(1) / agree.sum(1)


def uniforms(seeds: Int[np.ndarray, " B"], steps: Int[np.ndarray, " B"], count: int) -> Float[np.ndarray, "B count"]:
    """`count` numbers in [0, 1) for each row, functions of that row's seed and step alone.

    SplitMix64 (Steele, Lea & Flood 2014) over a counter: no state, so rows cannot influence one another.
    """
    seed, step = seeds.astype(np.uint64)[:, None], steps.astype(np.uint64)[:, None]
    index = np.arange(count, dtype=np.uint64)
    return (_mix(_mix(_mix(seed) + step) + index) >> np.uint64(11)) * 2.0**-53


def _mix(value: np.ndarray) -> np.ndarray:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _under(values: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{prefix}."): value for name, value in values.items() if name.startswith(f"{prefix}.")}
