"""What BatchNorm's statistics are taken over, in training and before an evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hpcvideo.errors import InputError


class BatchNormConfig(BaseModel):
    """sync: whose micro-batches one statistic sees, a `rank`'s own, those of a `group` of neighbouring ranks, or of `all`.

    Ranks are data-parallel ones: with the method pipeline they are the replicas of a stage.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    sync: Literal["rank", "group", "all"] = "rank"
    group_ranks: Annotated[int | None, Field(ge=2, description="of sync: group; must divide the data-parallel ranks")] = None
    frozen: Annotated[
        Literal["none", "partial", "all"],
        Field(description="keep the first weights' statistics, gamma and beta; partial: all but the first BatchNorm"),
    ] = "none"
    precise_batches: Annotated[
        int,
        Field(ge=0, description="training micro-batches a rank measures the statistics on before an evaluation; 0 does not"),
    ] = 0

    @model_validator(mode="after")
    def _makes_sense(self) -> BatchNormConfig:
        if (self.sync == "group") != (self.group_ranks is not None):
            raise ValueError("sync: group and group_ranks belong together; give both or neither")
        if self.frozen == "all" and self.sync != "rank":
            raise ValueError(f"sync: {self.sync} has no effect with frozen: all, which uses no batch's statistics")
        if self.frozen == "all" and self.precise_batches:
            raise ValueError("precise_batches has no effect with frozen: all, which keeps the statistics it has")
        return self

    def statistic_ranks(self, data_parallel: int) -> int:
        """How many of so many data-parallel ranks share a statistic. Raises InputError where groups do not divide them."""
        if self.sync != "group":
            return data_parallel if self.sync == "all" else 1
        assert self.group_ranks is not None
        if data_parallel % self.group_ranks:
            sizes = [size for size in range(2, data_parallel + 1) if data_parallel % size == 0]
            nearest = sorted(sorted(sizes, key=lambda size: abs(size - self.group_ranks))[:2])  # type: ignore[operator]
            remedy = f"use {' or '.join(map(str, nearest))}" if nearest else "use sync: rank"
            raise InputError(
                f"recipe.batch_norm.group_ranks = {self.group_ranks} does not divide {data_parallel} data-parallel "
                f"{'rank' if data_parallel == 1 else 'ranks'}; {remedy}"
            )
        return self.group_ranks

    def span(self, micro_batch: int, frames: int, data_parallel: int) -> int:
        """Images that one statistic of the first BatchNorm sees: a clip of 8 frames counts as 8. 0 where all are frozen.

        Raises InputError as `statistic_ranks`.
        """
        return 0 if self.frozen == "all" else micro_batch * frames * self.statistic_ranks(data_parallel)
