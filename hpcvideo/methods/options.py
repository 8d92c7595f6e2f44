"""The options of each method, checked before anything is started."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class ExchangeOptions(BaseModel):
    """How gradients are averaged over ranks. wire: the type in which they cross and are summed. bucket_megabytes: how
    much is exchanged at once (10^6 bytes)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    wire: Literal["fp32", "bf16", "fp16"] = "fp32"
    bucket_megabytes: Annotated[float, Field(gt=0)] = 25.0


class EndToEndOptions(ExchangeOptions):
    """zero: what DeepSpeed's ZeRO divides among the ranks, 0 nothing, 1 the optimizer's state, 2 the gradients too."""

    zero: Literal[0, 1, 2] = 0


class PipelineOptions(ExchangeOptions):
    """stages: parts into which the network is cut, each on a rank of its own. balance: what the cut makes equal, `counted`
    operations (the same everywhere) or `measured` seconds (of the machine that trains)."""

    stages: Annotated[int, Field(ge=1)]
    balance: Literal["counted", "measured"] = "counted"
    zero: int = 0

    @field_validator("zero")
    @classmethod
    def _whole(cls, zero: int) -> int:
        if zero != 0:
            raise ValueError(
                f"zero = {zero} with method pipeline: the clipped norm is that of whole gradients over all stages, which "
                "ZeRO takes apart; each stage holds a part of the model already: use zero: 0, or method end_to_end"
            )
        return zero


class UnitOptions(BaseModel):
    """stages: parts into which the units are dealt, each on a rank of its own. placement: the units of each stage by name,
    in any order; absent: by cost. balance: what that makes equal, `counted` operations (runs of neighbours, the same
    everywhere) or `measured` seconds of the machine that trains (units on any stage); no result depends on it.
    update_every: gradients of a clip after which a unit updates, or `clip` for one update a clip."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stages: Annotated[int, Field(ge=1)] = 1
    placement: tuple[tuple[str, ...], ...] | None = None
    balance: Literal["counted", "measured"] = "counted"
    update_every: Annotated[int, Field(ge=1)] | Literal["clip"] = "clip"

    @field_validator("update_every", mode="before")
    @classmethod
    def _number_or_clip(cls, value: object) -> object:
        # Else pydantic tells a fault of each of the two types, by its own names of them.
        if value != "clip" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{value!r} is neither `clip` nor a number of gradients from 1 on")
        return value


class SidewaysOptions(UnitOptions):
    """boundary: what happens between clips, see sideways/schedule.py."""

    boundary: Literal["reset", "drain", "stream", "continuous"] = "reset"


class DelayedOptions(UnitOptions):
    """boundary: the same; clips are drained wherever they do not stream."""

    boundary: Literal["reset", "stream", "continuous"] = "reset"


class SampledGradientsOptions(ExchangeOptions):
    """ratio: the part of a video's snippets whose gradient the encoder gets. chunk: snippets in the encoder at a time.
    sampling: which ones, see sampling.py. weighting: of the sampled gradient, `published` as it is or `unbiased`, times all
    over sampled. replay: the second forward draws the random numbers of the first. optimizer_steps: 1, or 2 as published:
    the detector's before the second forward and then the encoder's. chunk_statistics: lets the encoder's BatchNorms take a
    chunk as their batch, as published code may. checkpointing: the whole gradient, by activations computed again."""

    ratio: Annotated[float, Field(ge=0, le=1)] = 0.3
    chunk: Annotated[int, Field(ge=1)] = 4
    sampling: Literal["random", "grid", "feature", "gradient"] = "random"
    weighting: Literal["published", "unbiased"] = "published"
    replay: bool = True
    optimizer_steps: Literal[1, 2] = 1
    chunk_statistics: bool = False
    checkpointing: bool = False

    @model_validator(mode="after")
    def _fits(self) -> SampledGradientsOptions:
        if self.weighting == "unbiased" and self.sampling not in ("random", "grid"):
            raise ValueError(
                f"weighting: unbiased with sampling: {self.sampling}: only where every snippet is as likely as any other "
                "does a factor make the gradient unbiased; use sampling: random or grid, or weighting: published"
            )
        if self.checkpointing and self.ratio != 1:
            raise ValueError(f"checkpointing: true gives the whole gradient, but ratio is {self.ratio:g}; set ratio: 1")
        if self.checkpointing and self.optimizer_steps == 2:
            raise ValueError("checkpointing: true has one backward and so one step; set optimizer_steps: 1")
        return self


class ProgressiveOptions(ExchangeOptions):
    """fragment_frames: frames that a fragment's blocks see, the carried ones among them; several: in turn, an epoch each.
    overlap: the carried ones, by which later fragments bring fewer new frames (absent: what the network carries; 0 makes all
    fragments equally long). last_fragment: what becomes of frames that do not fill one, see progressive/fragments.py.
    gradients: of a video's fragments, added up or averaged. update: after a video or each fragment. across_seams: whether
    gradients flow into the fragment before, which needs the memory of the whole clip. carry_state: false starts every
    fragment anew. statistics: BatchNorm's running ones move with every fragment as published, or by a video as far as by one
    clip. evaluation: a clip scored whole, or its fragments' probabilities combined, or the last one's answer.
    evaluation_bins: of a whole clip, spans of time that are classified and averaged."""

    fragment_frames: Annotated[int, Field(ge=1)] | Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    overlap: Annotated[int, Field(ge=0)] | None = None
    last_fragment: Literal["keep", "join", "drop"] = "keep"
    gradients: Literal["sum", "mean"] = "sum"
    update: Literal["video", "fragment"] = "video"
    across_seams: bool = False
    carry_state: bool = True
    statistics: Literal["fragment", "video"] = "fragment"
    evaluation: Literal["whole", "max", "mean", "last"] = "whole"
    evaluation_bins: Annotated[int, Field(ge=1)] = 1

    @property
    def lengths(self) -> tuple[int, ...]:
        """fragment_frames of each epoch in turn."""
        return (self.fragment_frames,) if isinstance(self.fragment_frames, int) else self.fragment_frames

    @model_validator(mode="after")
    def _fits(self) -> ProgressiveOptions:
        if self.update == "fragment" and self.across_seams:
            raise ValueError(
                "across_seams: true with update: fragment: the weights of the fragment before have changed when its "
                "gradient would come; use update: video"
            )
        if self.update == "fragment" and len(self.lengths) > 1:
            raise ValueError(
                "several fragment_frames with update: fragment: a video would be another number of updates in each epoch; "
                "use update: video, or one length"
            )
        if self.update == "fragment" and self.gradients == "mean":
            raise ValueError("gradients: mean has no effect with update: fragment, which adds up none; take it out")
        if self.across_seams and not self.carry_state:
            raise ValueError("across_seams: true has no effect with carry_state: false: nothing crosses; take one out")
        if self.evaluation_bins > 1 and self.evaluation != "whole":
            raise ValueError(f"evaluation_bins cut a whole clip, but evaluation is {self.evaluation}; use evaluation: whole")
        return self
