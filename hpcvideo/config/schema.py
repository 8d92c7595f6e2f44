"""The config of a run: every key, its meaning and its bounds. Unknown keys are errors.

The config says nothing of ranks, nodes or devices: the same file runs alone and on 1,536 GPUs.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NamedOptions(BaseModel):
    """A task or method by name, with options that only it knows and checks."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    def options(self) -> dict[str, Any]:
        """Every key but the name."""
        return dict(self.__pydantic_extra__ or {})


class ModelConfig(_Section):
    """Which network, and how many frames of a clip it sees."""

    name: str
    frames: Annotated[int, Field(ge=1)] = 8
    options: dict[str, Any] = {}


class SamplingConfig(_Section):
    """Which frames make a clip: `segments` spreads them over the whole video (TSN), `dense` takes a window of it."""

    kind: Literal["segments", "dense"] = "segments"
    window: Annotated[int, Field(ge=1, description="frames that a dense clip spans")] = 64


class DataConfig(_Section):
    """Shard sets and how clips are cut from them."""

    train: Path
    validation: Path | None = None
    sampling: SamplingConfig = SamplingConfig()
    size: Annotated[int, Field(ge=8, description="height and width of a clip, pixels")] = 224
    crop: Literal["center", "multi_scale"] = "multi_scale"
    short_side: Annotated[int, Field(ge=8, description="short side before a centre crop, pixels")] = 256
    flip: bool = True
    workers: Annotated[int, Field(ge=0, description="decoding threads a rank; 0 decodes in the training thread")] = 2
    prefetch: Annotated[int, Field(ge=1, description="batches read ahead")] = 2

    @model_validator(mode="after")
    def _crop_fits(self) -> DataConfig:
        if self.size > self.short_side:
            raise ValueError(f"size {self.size} is larger than short_side {self.short_side}; a crop cannot grow")
        return self


class OptimizerConfig(_Section):
    """SGD with momentum; weight decay reaches convolution and linear weights only."""

    name: Literal["sgd"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4


class RecipeConfig(_Section):
    """How the weights change. `global_batch` is the authority: micro batch and accumulation follow from it."""

    global_batch: Annotated[int, Field(ge=1, description="clips an update, over all ranks")]
    micro_batch: Annotated[int | None, Field(ge=1, description="clips a forward on one rank; derived if absent")] = None
    epochs: Annotated[float | None, Field(gt=0)] = None
    steps: Annotated[int | None, Field(ge=1, description="updates; instead of epochs")] = None
    base_lr_per_64_clips: Annotated[float, Field(gt=0)] = 0.01
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    decay: Literal["step", "cosine", "constant"] = "cosine"
    decay_epochs: tuple[Annotated[float, Field(gt=0)], ...] = ()
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    optimizer: OptimizerConfig = OptimizerConfig()
    boost_head: Annotated[bool, Field(description="head weight LR x5, head bias x10 (TSM's fc_lr5)")] = False
    gradient_clip: Annotated[float, Field(ge=0, description="largest gradient norm; 0 does not clip")] = 20.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _one_length(self) -> RecipeConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps, not both and not neither")
        if self.decay == "step" and not self.decay_epochs:
            raise ValueError("decay: step needs decay_epochs, e.g. [40, 80]")
        if self.decay != "step" and self.decay_epochs:
            raise ValueError(f"decay_epochs has no effect with decay: {self.decay}; take it out or use decay: step")
        return self


class EvaluationConfig(_Section):
    """When the validation set is scored (always at the end, if there is one)."""

    every_epochs: Annotated[float | None, Field(gt=0)] = None
    batch: Annotated[int, Field(ge=1, description="clips a rank scores at once")] = 8


class CheckpointConfig(_Section):
    """When checkpoints are written (always at the end) and how many are kept."""

    every_steps: Annotated[int | None, Field(ge=1)] = None
    every_epochs: Annotated[float | None, Field(gt=0)] = None
    keep: Annotated[int, Field(ge=1)] = 2

    @model_validator(mode="after")
    def _one_interval(self) -> CheckpointConfig:
        if self.every_steps is not None and self.every_epochs is not None:
            raise ValueError("give every_steps or every_epochs, not both")
        return self


class LoggingConfig(_Section):
    """How often a step is written to events.jsonl; the line covers all steps since the one before."""

    every_steps: Annotated[int, Field(ge=1)] = 10


class RunConfig(_Section):
    """A run = config x task x method."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    task: NamedOptions
    method: NamedOptions = NamedOptions(name="end_to_end")
    model: ModelConfig
    data: DataConfig
    recipe: RecipeConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as plain JSON types; the name apart, equal runs have equal dicts."""
        return self.model_dump(mode="json")

    def deciding(self) -> dict[str, Any]:
        """`resolved` without what may differ when a run goes on: name, logging, checkpoint interval, evaluation, loader
        threads and read-ahead, and where the shard sets lie (which set it is, checkpoints tell by its digest).

        The checkpoint and evaluation intervals reach only BatchNorm's running statistics, and these by rounding alone.
        """
        left_out = ("name", "logging", "checkpoint", "evaluation")
        values = {key: value for key, value in self.resolved().items() if key not in left_out}
        places = ("workers", "prefetch", "train", "validation")
        values["data"] = {key: value for key, value in values["data"].items() if key not in places}
        return values

    def digest(self) -> str:
        """Sixteen hex digits of `deciding`: equal for two configs that train alike."""
        return hashlib.sha256(json.dumps(self.deciding(), sort_keys=True).encode()).hexdigest()[:16]
