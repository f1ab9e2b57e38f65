"""Diffusion Policy (arXiv 2303.04137): chunks denoised from Gaussian noise by a network.

Training uses the simple loss of DDPM (arXiv 2006.11239, equation 14); acting uses DDIM (arXiv 2010.02502, equation 12)
on a subset of the steps. The noise schedule (squared cosine, arXiv 2102.09672, equation 17) and the DDIM step come from
`diffusers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqbet.comparison.policies.diffusion_cnn import CNNShape, UNet
from vqbet.comparison.policies.diffusion_transformer import NoiseTransformer, TransformerShape
from vqbet.contract import Pictures, TrainingError
from vqbet.models.encoders import seen
from vqbet.models.spaces import Spaces, parts, rebuilt
from vqbet.policies.in_torch import in_torch, normals

Shape = CNNShape | TransformerShape
SHAPES: Mapping[str, type[Shape]] = {"cnn": CNNShape, "transformer": TransformerShape}


@final
class DiffusionPolicy(nn.Module):
    """An `acting.Planner` with a CNN or a transformer, depending on the type of the shape.

    Predicts `horizon` actions and returns the first `execute_steps` of them as its chunk. In the paper the predicted
    actions begin T - 1 steps in the past (horizon 16, T = 2, 8 executed). Here the first action is that of the current
    step, so the same horizon reaches T - 1 steps further. diffusion_steps: steps of the schedule in training.
    inference_steps: steps in acting, a divisor of diffusion_steps. eta: noise added in each of these (DDIM, equation
    16): 0 is DDIM, 1 is strided DDPM, whose samples lie less often between two behaviours. Denoised chunks are clipped
    to [-1, 1].
    """

    signal: Float[Tensor, " S"]

    def __init__(
        self,
        spaces: Spaces,
        shape: Shape,
        *,
        diffusion_steps: int = 100,
        inference_steps: int = 10,
        eta: float = 1.0,
    ) -> None:
        super().__init__()
        _check(spaces, shape, diffusion_steps=diffusion_steps, inference_steps=inference_steps, eta=eta)
        self.spaces, self.shape, self.channels, self.eta = spaces, shape, spaces.channels, eta
        self.window, self.horizon, self.chunk = shape.window, shape.horizon, shape.execute_steps
        self.goal_steps, self.tags = shape.goal_steps, 0
        self.noises = 1 + inference_steps if eta else 1
        self.draws = self.noises * self.horizon * self.channels[1]
        self.cameras, self.features, self.goal_features = spaces.cameras, spaces.features, spaces.goal_features
        self.network: UNet | NoiseTransformer
        self.network = (
            UNet(shape, spaces.inputs) if isinstance(shape, CNNShape) else NoiseTransformer(shape, spaces.inputs)
        )
        self.scheduler = _scheduler(diffusion_steps, inference_steps)
        alphas = self.scheduler.alphas_cumprod.clone()  # share of the chunk's variance that is left after each step
        self.register_buffer("signal", alphas, persistent=False)

    def see(self, pictures: Pictures) -> Float[np.ndarray, "B F"]:
        """Return the features of the pictures of one step."""
        return seen(self.spaces.encoder, pictures)

    def predict(
        self,
        noisy: Float[Tensor, "B H A"],
        step: Int[Tensor, " B"],
        observation: Float[Tensor, "B T D"],
        goal: Float[Tensor, "B G C"] | None,
    ) -> Float[Tensor, "B H A"]:
        """Return the predicted noise in each row's chunk. All values are in normalised units."""
        return self.network(noisy, self._timed(step), self.network.seen(observation, goal))

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean squared error of the predicted noise at one random step per row, and metrics.

        batch: windows whose chunk is the horizon, as `Windows` gathers them. Each action past an episode's end has
        weight 0, so that the last actions of an episode are learnt too; sums are divided by the number of all actions.
        `action_error` is the mean absolute error of the denoised actions, in physical units. Draws steps, noise and
        dropout from torch's global generator. Raises TrainingError if the windows have another chunk.
        """
        chunk = batch["action"].shape[1] - self.window + 1
        if chunk != self.horizon:
            raise TrainingError(f"diffusion policy: expected windows of chunk {self.horizon}, its horizon, got {chunk}")
        observation, goal, targets, _ = self.spaces.supervised(batch, self.horizon, self.goal_steps)
        target = targets[:, -1]
        weight = torch.as_tensor(batch["valid"])[:, -self.horizon :, None].to(target.dtype)  # (B, H, 1)
        step = torch.randint(len(self.signal), (len(target),), device=target.device)
        noise = torch.randn_like(target)
        noisy = self.diffuse(target, noise, step)
        error = self.predict(noisy, step, observation, goal) - noise
        loss = (weight * error**2).mean()
        with torch.no_grad():
            left = self.signal[step, None, None]
            guess = (target - error * (1 / left - 1).sqrt()).clamp(-1, 1)
            physical = weight * ((guess - target) * self.spaces.action.half_range).abs()
            action_error = physical.sum() / (weight.sum() * target.shape[2]).clamp_min(1)
        return loss, {"action_error": action_error.detach()}

    def diffuse(
        self, chunk: Float[Tensor, "B H A"], noise: Float[Tensor, "B H A"], step: Int[Tensor, " B"]
    ) -> Float[Tensor, "B H A"]:
        """Return the noised chunk at `step` of the schedule (DDPM, equation 4)."""
        left = self.signal[step, None, None]
        return left.sqrt() * chunk + (1 - left).sqrt() * noise

    @in_torch
    def plan(
        self,
        observation: Float[Tensor, "B T D"],
        goal: Float[Tensor, "B G C"] | None,
        uniform: Float[Tensor, "B draws"],
    ) -> tuple[Float[Tensor, "B H A"], Int[Tensor, "B 0"]]:
        """Return the first `execute_steps` actions of the denoised chunk in physical units, and empty tags."""
        seen = self.network.seen(*self.spaces.seen(observation, goal))
        steps = self.scheduler.timesteps
        timed = self._timed(steps.to(seen.device))  # (S, ...)
        chunk, *added = rearrange(normals(uniform), "b (n h a) -> n b h a", n=self.noises, h=self.horizon)
        for index, step in enumerate(steps.tolist()):
            noise = self.network(chunk, timed[index : index + 1].expand(len(chunk), *timed.shape[1:]), seen)
            fresh = added[index] if self.eta else None
            chunk = self.scheduler.step(
                noise, step, chunk, eta=self.eta, variance_noise=fresh, use_clipped_model_output=True
            ).prev_sample
        return self.spaces.action.unnormalize(chunk[:, : self.chunk]), chunk.new_zeros(len(chunk), 0, dtype=torch.int64)

    def arguments(self) -> dict[str, Any]:
        sampling = {
            "diffusion_steps": len(self.signal),
            "inference_steps": len(self.scheduler.timesteps),
            "eta": self.eta,
        }
        network = "cnn" if isinstance(self.shape, CNNShape) else "transformer"
        return {
            "spaces": self.spaces.arguments(),
            "network": network,
            "shape": asdict(self.shape),
            "sampling": sampling,
        }

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the tensors of "model" and "normalizer"."""
        return parts(self, self.spaces)

    @classmethod
    def from_components(
        cls, arguments: Mapping[str, Any], components: Mapping[str, Mapping[str, np.ndarray]]
    ) -> DiffusionPolicy:
        """Rebuild from `arguments` and `components`, exactly. Raises BundleError naming an invalid part."""

        def make(spaces: Spaces) -> DiffusionPolicy:
            shape = SHAPES[arguments["network"]](**arguments["shape"])
            return cls(spaces, shape, **arguments["sampling"])

        return rebuilt("diffusion", make, arguments, components)

    def _timed(self, step: Int[Tensor, " S"]) -> Tensor:
        return self.network.timed(sinusoids(step, self.network.step_width))


def sinusoids(step: Int[Tensor, " S"], width: int) -> Float[Tensor, "S W"]:
    """Embed the step as sines and cosines of width / 2 wavelengths, 2 pi to 20,000 pi (arXiv 1706.03762, sec. 3.5)."""
    exponent = torch.arange(width // 2, device=step.device) / max(1, width // 2 - 1)
    angle = step[:, None] * torch.exp(-math.log(10_000) * exponent)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _scheduler(diffusion_steps: int, inference_steps: int) -> Any:
    try:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler  # takes seconds
    except ImportError as error:
        raise TrainingError(
            "Diffusion Policy needs the package diffusers, which is not installed: pip install 'vqbet[comparison]'"
        ) from error
    scheduler = DDIMScheduler(
        num_train_timesteps=diffusion_steps, beta_schedule="squaredcos_cap_v2", clip_sample=True, set_alpha_to_one=True
    )
    scheduler.set_timesteps(inference_steps)
    return scheduler


def _check(spaces: Spaces, shape: Shape, *, diffusion_steps: int, inference_steps: int, eta: float) -> None:
    """Raise TrainingError naming inconsistent numbers."""
    spaces.expect_goal("diffusion policy", shape.goal_steps)
    if not 1 <= shape.execute_steps <= shape.horizon:
        raise TrainingError(
            f"diffusion policy: execute_steps: expected 1 to {shape.horizon}, the horizon, got {shape.execute_steps}"
        )
    if inference_steps < 2 or diffusion_steps % inference_steps:
        raise TrainingError(
            f"diffusion policy: inference_steps: expected 2 or more, a divisor of diffusion_steps ({diffusion_steps}), "
            f"got {inference_steps}"
        )
    if not 0 <= eta <= 1:
        raise TrainingError(f"diffusion policy: eta: expected 0 (DDIM) to 1 (DDPM), got {eta}")
