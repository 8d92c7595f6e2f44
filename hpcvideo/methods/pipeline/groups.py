"""The ranks of a pipeline as DeepSpeed asks for them, with two process groups a rank instead of O(world)."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from deepspeed.runtime.pipe.topology import PipelineParallelGrid, ProcessTopology

from hpcvideo.distributed.topology import StageGrid


def deepspeed_topology(grid: StageGrid) -> ProcessTopology:
    """The grid as DeepSpeed's axes `pipe` and `data`, the one of neighbouring ranks last."""
    if grid.stages_adjacent:
        return ProcessTopology(axes=["data", "pipe"], dims=[grid.replicas, grid.stages])
    return ProcessTopology(axes=["pipe", "data"], dims=[grid.stages, grid.replicas])


class StageGroups(PipelineParallelGrid):
    """DeepSpeed's grid over a StageGrid. Collective.

    DeepSpeed's own constructor has every rank call new_group for every group there is (a model and a pipe group a replica, a
    data group a stage, a group of one for every rank), each with a barrier of the whole world in the store. A rank needs
    the two that it is in: the replicas of its stage and the stages of its replica. They are made among their members alone,
    in this order on all ranks.
    """

    def __init__(self, grid: StageGrid) -> None:
        self.grid = grid
        self._topo = deepspeed_topology(grid)
        self.global_rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.data_parallel_size, self.pipe_parallel_size = grid.replicas, grid.stages
        self.model_parallel_size = self.slice_parallel_size = 1
        self.stage_id, self.data_parallel_id = grid.stage(self.global_rank), grid.replica(self.global_rank)
        self.is_first_stage = self.stage_id == 0
        self.is_last_stage = self.stage_id == grid.stages - 1
        self.dp_group = grid.stage_ranks(self.stage_id)
        self.pp_group = grid.replica_ranks(self.data_parallel_id)
        self.dp_proc_group = _group(self.dp_group)
        self.pp_proc_group = _group(self.pp_group)
        # DeepSpeed's "model" is one whole copy of the network, here the stages of a replica.
        self.ds_model_proc_group = self.pp_proc_group
        self.ds_model_world_size, self.ds_model_rank = grid.stages, self.stage_id

    def get_stage_id(self) -> int:
        """This rank's stage."""
        return self.stage_id

    def get_data_parallel_id(self) -> int:
        """This rank's replica."""
        return self.data_parallel_id

    def stage_to_global(self, stage_id: int, **kwargs: Any) -> int:
        """The rank of a stage in this rank's replica, or in replica `data`."""
        return self.grid.rank(stage_id, kwargs.get("data", self.data_parallel_id))


def _group(ranks: list[int]) -> Any:
    if len(ranks) == dist.get_world_size():
        return dist.group.WORLD
    return dist.new_group(ranks, use_local_synchronization=True)
