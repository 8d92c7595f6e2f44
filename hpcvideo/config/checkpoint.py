"""When checkpoints are written and how many are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class CheckpointConfig(BaseModel):
    """When checkpoints are written (always at the end) and how many are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    every_steps: Annotated[int | None, Field(ge=1)] = None
    every_epochs: Annotated[float | None, Field(gt=0)] = None
    interval: Annotated[
        Literal["auto"] | None,
        Field(description="auto: as often as their measured cost and the nodes' failures make best (Young's rule)"),
    ] = None
    node_mtbf_hours: Annotated[
        float | None, Field(gt=0, description="of interval: auto; hours between failures of one node; absent: the site's")
    ] = None
    keep: Annotated[int, Field(ge=1)] = 2

    @model_validator(mode="after")
    def _one_interval(self) -> CheckpointConfig:
        given = [name for name in ("every_steps", "every_epochs", "interval") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give {' or '.join(given)}, not {'both' if len(given) == 2 else 'all'}")
        if self.node_mtbf_hours is not None and self.interval is None:
            raise ValueError("node_mtbf_hours has no effect without interval: auto; take it out or set that")
        return self
