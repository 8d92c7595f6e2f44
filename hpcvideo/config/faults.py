"""What a run does when something goes wrong, and when it stops by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class FaultsConfig(BaseModel):
    """Hangs, bad losses, and the end of a start before its work is done; nothing of it changes what is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    watchdog_seconds: Annotated[
        float | None,
        Field(gt=0, description="without a sign of life for so long a rank writes its stacks and ends; null never does"),
    ] = 600.0
    on_bad_loss: Annotated[
        Literal["stop", "skip"],
        Field(description="skip: back to the last checkpoint, and on from there without the batch that did it"),
    ] = "stop"
    explosion_factor: Annotated[
        float | None,
        Field(gt=1, description="a loss above so many times the median of the last 100 is bad too; absent: NaN and inf"),
    ] = None
    most_skipped: Annotated[int, Field(ge=1, description="with skip: batches left out in a run before it stops")] = 3
    exit_after_minutes: Annotated[
        float | None, Field(gt=0, description="save and stop so long after the start, to be started again; absent: never")
    ] = None
