"""The options of each method, checked before anything is started."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class NoOptions(BaseModel):
    """A method without options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PipelineOptions(BaseModel):
    """stages: parts into which the network is cut, each on a rank of its own. balance: what the cut makes equal, `counted`
    operations (the same everywhere) or `measured` seconds (of the machine that trains)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stages: Annotated[int, Field(ge=1)]
    balance: Literal["counted", "measured"] = "counted"
