"""BESO: actions denoised in a few steps by a goal-conditioned score model, with or without guidance.

Reuss et al. 2023 (arXiv 2304.02532), on the preconditioning and schedule of Karras et al. 2022 (arXiv 2206.00364) and
the classifier-free guidance of Ho & Salimans 2022 (arXiv 2207.12598). All values are in normalised units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, final, get_args

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vqbet.contract import Pictures, TrainingError
from vqbet.models.encoders import seen
from vqbet.models.nets import Block, DecoderShape
from vqbet.models.spaces import Spaces, parts, rebuilt
from vqbet.policies.in_torch import in_torch, normals

SIGMA_DATA = 0.5  # assumed standard deviation of actions (both papers)
SPREAD = 0.5  # scale of the log-logistic distribution of training noise levels (the authors' code)

Sampler = Literal["ddim", "euler", "euler_ancestral"]
Schedule = Literal["karras", "exponential"]


@dataclass(frozen=True, slots=True)
class BesoShape(DecoderShape):
    """Shape of the transformer. chunk is 1: each observation of the window has one action."""

    chunk: int = 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """Goal guidance and sampling of actions.

    guidance: lambda of unconditional + lambda (conditional - unconditional); 1 evaluates only the conditional model
    (C-BESO). goal_dropout: the probability with which training masks the goal of a row (0.1 for CFG-BESO). sampler:
    "ddim" and "euler" are identical here, see `sample`; "euler_ancestral" adds noise between steps. steps: evaluations,
    from sigma_max to sigma_min on the schedule ("karras" with rho) and then to 0. Training draws noise levels from
    sigma_min to sigma_max.
    """

    guidance: float = 1.0
    goal_dropout: float = 0.0
    sampler: Sampler = "ddim"
    schedule: Schedule = "exponential"
    rho: float = 5.0
    steps: int = 3
    sigma_min: float = 0.005
    sigma_max: float = 1.0


class ScoreNetwork(nn.Module):
    """F of Karras et al., equation 7: a causal transformer over the noise level, G goals and o_1, a_1, ..., o_T, a_T.

    An action shares the learned position of its observation; the noise level has none. maskable: add a learned vector
    that replaces masked goals. Weights are initialised as in `nets.Decoder`.
    """

    def __init__(self, channels: tuple[int, int, int], shape: BesoShape, *, maskable: bool) -> None:
        super().__init__()
        observation, action, goal = channels
        width = shape.width
        self.goal_steps = shape.goal_steps
        self.embed_level = nn.Linear(1, width)
        self.embed_observation = nn.Linear(observation, width)
        self.embed_action = nn.Linear(action, width)
        if shape.goal_steps:
            self.embed_goal = nn.Linear(goal, width)
        if maskable:
            self.no_goal = nn.Parameter(torch.zeros(1, width))
        self.position = nn.Parameter(torch.zeros(shape.goal_steps + shape.window, width))
        self.dropout = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(width, shape.heads, shape.dropout) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, action)
        for name, parameter in self.named_parameters():
            residual = name.endswith(("attention.out.weight", "contract.weight"))
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * shape.depth) if residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        noised: Float[Tensor, "B T A"],
        level: Float[Tensor, " B"],
        observation: Float[Tensor, "B T D"],
        goal: Float[Tensor, "B G C"] | None,
        masked: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B T A"]:
        """Return F. noised, level: scaled by the preconditioning; masked[b]: the goal of row b is masked."""
        tokens = [self.embed_level(level[:, None, None])]
        if self.goal_steps:
            wanted = self.embed_goal(goal)
            if masked is not None:
                wanted = torch.where(masked[:, None, None], self.no_goal, wanted)
            tokens.append(wanted + self.position[: self.goal_steps])
        steps = torch.stack([self.embed_observation(observation), self.embed_action(noised)], dim=2)  # (B, T, 2, W)
        steps = steps + self.position[self.goal_steps :, None]
        x = self.dropout(torch.cat([*tokens, rearrange(steps, "b t two w -> b (t two) w")], dim=1))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 1 + self.goal_steps + 1 :: 2]))


@final
class Beso(nn.Module):
    """Denoiser of the actions of a window, given observations and a goal; the newest observation's action is executed.

    settings: arguments of `Sampling`. Raises TrainingError if the arguments are inconsistent.
    """

    def __init__(self, spaces: Spaces, shape: BesoShape, **settings: Any) -> None:
        super().__init__()
        sampling = Sampling(**settings)
        _check(spaces, shape, sampling)
        self.spaces, self.shape, self.sampling = spaces, shape, sampling
        self.sigmas = noise_levels(
            sampling.schedule,
            sampling.steps,
            sigma_min=sampling.sigma_min,
            sigma_max=sampling.sigma_max,
            rho=sampling.rho,
        )
        self.channels = spaces.channels
        self.cameras, self.features, self.goal_features = spaces.cameras, spaces.features, spaces.goal_features
        self.network = ScoreNetwork(spaces.inputs, shape, maskable=sampling.goal_dropout > 0)
        self.window, self.chunk, self.goal_steps, self.tags = shape.window, shape.chunk, shape.goal_steps, 0
        self.noises = sampling.steps if sampling.sampler == "euler_ancestral" else 1  # the last step adds none
        self.draws = self.noises * shape.window * self.channels[1]

    def see(self, pictures: Pictures) -> Float[np.ndarray, "B F"]:
        """Return the features of the pictures of one step."""
        return seen(self.spaces.encoder, pictures)

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the denoising error at every recorded position, and metrics. A window has one noise level (one token).

        Errors are weighted so that F's targets have unit variance and weight at every level (Karras et al., table 1).
        The sum is divided by the number of positions, so the loss of a batch is the mean of the losses of its halves.
        Padded positions are no targets; their actions are replaced by noise. "action_error" is the error of the
        denoised actions, in physical units. Draws levels, noise and masks from torch's global generator.
        """
        observation, goal, action, weight = self.spaces.supervised(batch, self.chunk, self.goal_steps)
        action = action[:, :, 0]
        action = torch.where(weight[:, :, None] > 0, action, SIGMA_DATA * torch.randn_like(action))  # (B, T, A)
        uniform, noise = torch.rand(len(action), device=action.device), torch.randn_like(action)
        masked = None
        if self.training and self.sampling.goal_dropout:
            masked = torch.rand(len(action), device=action.device) < self.sampling.goal_dropout

        sigma = training_sigma(uniform, sigma_min=self.sampling.sigma_min, sigma_max=self.sampling.sigma_max)
        out = preconditioning(sigma)[1]
        noised = action + sigma[:, None, None] * noise
        error = self.denoise(noised, sigma, observation, goal, masked) - action
        loss = (weight * (error / out[:, None, None]).square().mean(2)).mean()
        physical = (error.detach() * self.spaces.action.half_range).abs().mean(2)
        return loss, {"action_error": (weight * physical).sum() / weight.sum().clamp_min(1)}

    def denoise(
        self,
        noised: Float[Tensor, "B T A"],
        sigma: Float[Tensor, " B"],
        observation: Float[Tensor, "B T D"],
        goal: Float[Tensor, "B G C"] | None,
        masked: Bool[Tensor, " B"] | None = None,
    ) -> Float[Tensor, "B T A"]:
        """Return D, the expected actions at noise level sigma, with one evaluation (Karras et al., equation 7)."""
        skip, out, scale, level = (value[:, None, None] for value in preconditioning(sigma))
        return skip * noised + out * self.network(scale * noised, level[:, 0, 0], observation, goal, masked)

    def guided(
        self,
        noised: Float[Tensor, "B T A"],
        sigma: Float[Tensor, " B"],
        observation: Float[Tensor, "B T D"],
        goal: Float[Tensor, "B G C"] | None,
    ) -> Float[Tensor, "B T A"]:
        """Return D with classifier-free guidance (Ho & Salimans, equation 6, lambda = 1 + w), both models in one batch.

        Guiding D is equivalent to guiding the score (D - x) / sigma^2, since the weights of the two models sum to one.
        """
        if goal is None or self.sampling.guidance == 1:
            return self.denoise(noised, sigma, observation, goal)
        masked = torch.arange(2, device=noised.device).repeat_interleave(len(noised)) == 1
        noised, sigma, observation, goal = (torch.cat([value, value]) for value in (noised, sigma, observation, goal))
        told, untold = self.denoise(noised, sigma, observation, goal, masked).chunk(2)
        return untold + self.sampling.guidance * (told - untold)

    @in_torch
    def plan(
        self,
        observation: Float[Tensor, "B T D"],
        goal: Float[Tensor, "B G C"] | None,
        uniform: Float[Tensor, "B draws"],
    ) -> tuple[Float[Tensor, "B 1 A"], Int[Tensor, "B 0"]]:
        """Return the newest action of a denoised window in physical units, and empty tags."""
        observation, goal = self.spaces.seen(observation, goal)
        noise = normals(uniform).view(len(uniform), self.noises, self.window, -1).transpose(0, 1)

        def denoise(noised: Tensor, sigma: float) -> Tensor:
            return self.guided(noised, noised.new_full(noised.shape[:1], sigma), observation, goal)

        action = sample(denoise, noise, self.sigmas)[:, -1:]
        return self.spaces.action.unnormalize(action), action.new_zeros(len(action), 0, dtype=torch.int64)

    def arguments(self) -> dict[str, Any]:
        return {
            "spaces": self.spaces.arguments(),
            "shape": asdict(self.shape),
            "sampling": asdict(self.sampling),
        }

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the tensors of "model" and "normalizer"."""
        return parts(self, self.spaces)

    @classmethod
    def from_components(cls, arguments: Mapping[str, Any], components: Mapping[str, Mapping[str, np.ndarray]]) -> Beso:
        """Rebuild from `arguments` and `components`, exactly. Raises BundleError naming an invalid part."""

        def make(spaces: Spaces) -> Beso:
            return cls(spaces, BesoShape(**arguments["shape"]), **arguments["sampling"])

        return rebuilt("beso", make, arguments, components)


def preconditioning(
    sigma: Float[Tensor, " B"],
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"], Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Return c_skip, c_out, c_in and c_noise (Karras et al., table 1): D = c_skip x + c_out F(c_in x, c_noise)."""
    total = sigma.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, SIGMA_DATA * sigma * total.rsqrt(), total.rsqrt(), sigma.log() / 4


def training_sigma(uniform: Float[Tensor, " B"], *, sigma_min: float, sigma_max: float) -> Float[Tensor, " B"]:
    """Return training noise levels from uniform numbers: log-logistic around SIGMA_DATA, truncated (BESO)."""
    low, high = (1 / (1 + (SIGMA_DATA / end) ** (1 / SPREAD)) for end in (sigma_min, sigma_max))  # the CDF at the ends
    return (SIGMA_DATA * (SPREAD * torch.logit(low + (high - low) * uniform)).exp()).clamp(sigma_min, sigma_max)


def noise_levels(
    schedule: Schedule, steps: int, *, sigma_min: float, sigma_max: float, rho: float
) -> tuple[float, ...]:
    """Return `steps` noise levels from sigma_max down to sigma_min, then 0.

    "karras": equation 5 of Karras et al.; "exponential": evenly spaced in log sigma. One step is sigma_max and 0.
    Raises TrainingError for invalid numbers.
    """
    if schedule not in get_args(Schedule):
        raise TrainingError(f"beso: schedule: expected one of {', '.join(get_args(Schedule))}, got {schedule!r}")
    if steps < 1 or not 0 < sigma_min < sigma_max < math.inf or not 0 < rho < math.inf:
        raise TrainingError(
            "beso: expected steps of at least 1, 0 < sigma_min < sigma_max and rho > 0, "
            f"got steps {steps}, sigma_min {sigma_min}, sigma_max {sigma_max}, rho {rho}"
        )
    done = np.linspace(0.0, 1.0, steps)
    if schedule == "exponential":
        levels = sigma_max * (sigma_min / sigma_max) ** done
    else:
        levels = ((1 - done) * sigma_max ** (1 / rho) + done * sigma_min ** (1 / rho)) ** rho
    return (*levels.tolist(), 0.0)


def ancestral(now: float, then: float) -> tuple[float, float]:
    """Return the level `down` to step to and the noise `up` to add, so that x reaches level `then` (DDPM's posterior).

    up = then sqrt(now^2 - then^2) / now and down^2 + up^2 = then^2 (Song et al. 2021, arXiv 2011.13456, appendix F).
    """
    return then * then / now, then * math.sqrt(now * now - then * then) / now


def sample(
    denoise: Callable[[Tensor, float], Tensor], noise: Float[Tensor, "S B T A"], sigmas: Sequence[float]
) -> Float[Tensor, "B T A"]:
    """Denoise noise[0] from level sigmas[0] through all levels; noise[i] is added after step i for 0 < i < S.

    A step solves dx / d sigma = (x - D) / sigma (Karras et al., equations 1 and 3) for a constant D. This is Euler's
    step x + (down - sigma) (x - D) / sigma, and also DDIM's, which is DPM-Solver-1 (arXiv 2206.00927).
    """
    x = sigmas[0] * noise[0]
    for step, (now, then) in enumerate(pairwise(sigmas), 1):
        down, up = ancestral(now, then) if step < len(noise) else (then, 0.0)
        x = (down / now) * x + (1 - down / now) * denoise(x, now)
        if up:
            x = x + up * noise[step]
    return x


def _check(spaces: Spaces, shape: BesoShape, sampling: Sampling) -> None:
    guidance, goal_dropout = sampling.guidance, sampling.goal_dropout
    if sampling.sampler not in get_args(Sampler):
        raise TrainingError(f"beso: sampler: expected one of {', '.join(get_args(Sampler))}, got {sampling.sampler!r}")
    if shape.chunk != 1:
        raise TrainingError(f"beso: chunk: expected 1, an action for each observation of the window, got {shape.chunk}")
    spaces.expect_goal("beso", shape.goal_steps)
    if not 0 <= goal_dropout < 1 or not 0 <= guidance < math.inf:
        raise TrainingError(
            f"beso: expected goal_dropout in [0, 1) and guidance of 0 or more, got {goal_dropout} and {guidance}"
        )
    if spaces.goal is None and (guidance != 1 or goal_dropout):
        raise TrainingError(
            f"beso: guidance {guidance} and goal_dropout {goal_dropout} need a goal, there is none; "
            "give goal channels and goal_steps, or leave guidance at 1 and goal_dropout at 0"
        )
    if guidance != 1 and goal_dropout == 0:
        raise TrainingError(
            f"beso: guidance {guidance} needs the score without a goal, which goal_dropout 0 never trains; "
            "set goal_dropout (0.1 in the paper) and train again, or guidance 1"
        )
