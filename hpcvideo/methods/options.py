"""The options of each method, checked before anything is started."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


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
    in any order; absent: runs of neighbours of nearly equal cost. update_every: gradients of a clip after which a unit
    updates, or `clip` for one update a clip."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stages: Annotated[int, Field(ge=1)] = 1
    placement: tuple[tuple[str, ...], ...] | None = None
    update_every: Annotated[int, Field(ge=1)] | Literal["clip"] = "clip"


class SidewaysOptions(UnitOptions):
    """boundary: what happens between clips, see sideways/schedule.py."""

    boundary: Literal["reset", "drain", "stream"] = "reset"


class DelayedOptions(UnitOptions):
    """boundary: the same; clips are drained wherever they do not stream."""

    boundary: Literal["reset", "stream"] = "reset"
