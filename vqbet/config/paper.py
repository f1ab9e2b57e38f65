"""The comparison's section of params.yaml: which worlds and policies, at which size, and every baseline's numbers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vqbet.config.section import Count, Fraction, Name, Positive, Section, Seed, Share, Transformer, Weight, Window

Chunk = Annotated[int, Field(ge=1, le=64)]
Execute = Literal["first", "chunk", "average"]
Unconditional = Literal["vqbet", "bc", "bet", "diffusion_cnn", "diffusion_transformer"]
Conditional = Literal["vqbet", "bc", "bet", "beso", "cfg_beso"]


class TrainingParams(Section):
    """A baseline's training; how many steps it has follows from the seconds of the chosen size. warmup: a share."""

    batch: Count
    lr: Positive
    warmup: Share
    min_lr: Fraction
    weight_decay: Weight
    clip: Weight
    ema: Share
    precision: Literal["fp32", "bf16"]


class Baseline(Section):
    """What every baseline has beside its shape and its options."""

    training: TrainingParams
    execute: Execute


class BCShape(Section):
    window: Window
    chunk: Chunk
    depth: Annotated[int, Field(ge=1, le=16)]
    hidden: Count
    dropout: Share


class BCOptions(Section):
    loss: Literal["l1", "l2"]


class BCParams(Baseline):
    """MLP-BC, and with goals GCBC."""

    shape: BCShape
    options: BCOptions


class BeTShape(Transformer):
    chunk: Chunk
    bins: Annotated[int, Field(ge=2, le=1024)]


class BeTOptions(Section):
    focal_gamma: Weight
    offset_weight: Weight
    temperature: Positive


class BeTParams(Baseline):
    """BeT, and with goals C-BeT."""

    shape: BeTShape
    options: BeTOptions


class Executed(Section):
    """How many actions diffusion predicts, and how many of them it executes before it predicts again."""

    window: Window
    horizon: Chunk
    execute_steps: Chunk

    @model_validator(mode="after")
    def fits(self) -> Executed:
        if self.execute_steps > self.horizon:
            raise ValueError(f"execute_steps {self.execute_steps} is above horizon {self.horizon}")
        return self


class CNNShape(Executed):
    width: Count
    levels: Annotated[int, Field(ge=1, le=5)]
    kernel: Count
    groups: Count
    step_width: Count


class TransformerShape(Executed, Transformer):
    pass


class DiffusionOptions(Section):
    diffusion_steps: Count
    inference_steps: Count
    eta: Fraction


class DiffusionCNNParams(Baseline):
    """Diffusion Policy with the 1-D U-Net."""

    shape: CNNShape
    options: DiffusionOptions


class DiffusionTransformerParams(Baseline):
    """Diffusion Policy with the transformer."""

    shape: TransformerShape
    options: DiffusionOptions


class BesoOptions(Section):
    guidance: Weight
    goal_dropout: Share
    sampler: Literal["ddim", "euler", "euler_ancestral"]
    schedule: Literal["exponential", "karras"]
    rho: Positive
    steps: Count
    sigma_min: Positive
    sigma_max: Positive


class BesoParams(Baseline):
    """C-BESO and, with guidance, CFG-BESO."""

    shape: Transformer
    options: BesoOptions


class BaselinesParams(Section):
    """The baselines of one task."""

    bc: BCParams
    bet: BeTParams
    diffusion_cnn: DiffusionCNNParams
    diffusion_transformer: DiffusionTransformerParams
    beso: BesoParams
    cfg_beso: BesoParams


class SizeParams(Section):
    """How much a cell is worth: seconds of training, episodes and seeds, more of the last two for `main` policies, and
    seconds and seeds of ablations."""

    train_s: Positive
    ablation_s: Positive
    ablation_seeds: Count
    episodes: Count
    seeds: Count
    main_episodes: Count
    main_seeds: Count


class PaperParams(Section):
    """The comparison. changes: of VQ-BeT's sections, by dotted key; ablations: a name -> changes."""

    size: Name
    sizes: dict[Name, SizeParams]  # ascending
    tasks: list[Name]
    first_seed: Seed
    policies: list[Unconditional]
    goal_policies: list[Conditional]
    main: list[Name]
    goal_steps: Annotated[int, Field(ge=1, le=64)]
    goal_changes: dict[str, Any]
    ablation_tasks: list[Name]
    ablations: dict[str, dict[str, Any]]
    baselines: dict[Name, BaselinesParams]

    @model_validator(mode="after")
    def known(self) -> PaperParams:
        if self.size not in self.sizes:
            raise ValueError(f"size {self.size!r} is none of {', '.join(self.sizes)}")
        return self
