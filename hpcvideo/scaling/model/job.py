"""What a config asks of a system at one scale: ranks, batch, steps, layers and stages; a pure function of its arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hpcvideo.config import RunConfig
from hpcvideo.data.node_local_order import check_virtual_nodes
from hpcvideo.distributed.placement import cut_into_stages
from hpcvideo.distributed.topology import choose_grid
from hpcvideo.errors import InputError
from hpcvideo.methods.batch_split import split_over
from hpcvideo.methods.gradient_exchange import WIRES
from hpcvideo.methods.options import ExchangeOptions
from hpcvideo.methods.protocol import BatchSplit
from hpcvideo.methods.registry import UNIT_METHODS, stage_count
from hpcvideo.scaling.model.data_path import DataFacts
from hpcvideo.scaling.model.layer_work import LayerWork, count_layers
from hpcvideo.scaling.model.set_facts import SetFacts

CountLayers = Callable[[RunConfig, int], Sequence[LayerWork]]
"""(config, clips of a micro-batch) -> the layers' work for that many clips."""

_MEMORY_FOLDERS = ("/dev/shm", "/tmp/ramdisk", "/mnt/ramdisk")


@dataclass(frozen=True)
class Job:
    """A config on so many nodes. Equal configs and scales give equal jobs."""

    config: RunConfig
    """With the global batch of this scale."""
    data: SetFacts
    nodes: int
    ranks_per_node: int
    split: BatchSplit
    steps_per_epoch: float
    total_steps: int
    layers: tuple[LayerWork, ...]
    """The work of one micro-batch, in forward order."""
    stage_layers: tuple[range, ...]
    """Which of `layers` each stage has; one range without a pipeline."""
    stages_adjacent: bool
    """Whether neighbouring ranks hold neighbouring stages; else replicas of one stage."""

    @property
    def ranks(self) -> int:
        """Ranks in all, a GPU each."""
        return self.nodes * self.ranks_per_node

    @property
    def stages(self) -> int:
        """Parts of the network on ranks of their own; 1 without a pipeline."""
        return len(self.stage_layers)

    @property
    def replicas(self) -> int:
        """Data-parallel size."""
        return self.split.data_parallel

    @property
    def micro_batch(self) -> int:
        """Clips of one forward."""
        return self.split.micro_batch

    @property
    def accumulation(self) -> int:
        """Micro-batches of a replica in a step."""
        return self.split.accumulation

    @property
    def global_batch(self) -> int:
        """Clips of a step over all ranks."""
        return self.split.global_batch

    @property
    def epochs(self) -> float:
        """Times that each video comes."""
        return self.total_steps / self.steps_per_epoch

    @property
    def precision(self) -> Literal["fp32", "bf16", "fp16"]:
        """Of forward and backward."""
        return self.config.recipe.precision

    @property
    def activation_scale(self) -> float:
        """Bytes of a number that stages hand on, to those in 32 bit."""
        return 1.0 if self.precision == "fp32" else 0.5

    @cached_property
    def exchange(self) -> ExchangeOptions:
        """The method's wire, bucket and (data parallel) ZeRO options, with their defaults."""
        options = self.config.method.options()
        return ExchangeOptions(**{key: options[key] for key in ("wire", "bucket_megabytes") if key in options})

    @property
    def wire_bytes(self) -> int:
        """Bytes of one gradient number as it crosses."""
        return WIRES[self.exchange.wire].itemsize

    @property
    def bucket_bytes(self) -> int:
        """Bytes of a gradient bucket on the wire."""
        return round(self.exchange.bucket_megabytes * 1e6)

    @property
    def zero(self) -> int:
        """DeepSpeed's ZeRO: 0, 1 or 2."""
        return int(self.config.method.options().get("zero", 0))

    @cached_property
    def parameters(self) -> int:
        """Of the whole network."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def clip_bytes(self) -> int:
        """One clip as it goes to the GPU, uint8."""
        return self.config.model.frames * 3 * self.config.data.size**2

    @property
    def clip_facts(self) -> DataFacts:
        """What the data path needs of the training set."""
        return DataFacts(self.config.model.frames, self.data.frame_bytes, self.data.train_bytes)

    @property
    def reads_from(self) -> Literal["shared", "local", "memory"]:
        """Where decoding workers read: the shared file system, the nodes' own disks, or their memory (`data.stage`)."""
        stage = self.config.data.stage
        if stage is None:
            return "shared"
        return "memory" if stage.to.startswith(_MEMORY_FOLDERS) else "local"

    @property
    def evaluation_clips(self) -> int:
        """Clips that one evaluation scores, over all ranks: videos x clips x crops."""
        return self.data.validation_videos * self.config.evaluation.clips * self.config.evaluation.crops

    @property
    def evaluations(self) -> int:
        """Evaluations of the whole run; the one at the end counts once."""
        if self.data.validation_videos == 0:
            return 0
        every = self.config.evaluation.every_epochs
        if every is None:
            return 1
        steps = max(1, round(every * self.steps_per_epoch))
        return math.ceil(self.total_steps / steps)


def job_at(
    config: RunConfig, nodes: int, ranks_per_node: int, data: SetFacts, global_batch: int | None = None,
    count: CountLayers = count_layers,
) -> Job:  # fmt: skip
    """The config's job on `nodes` nodes of `ranks_per_node` ranks.

    global_batch: clips of a step at this scale; None keeps the config's. The run sees as many clips as the config says:
    epochs stay, and a config that counts steps makes fewer of a larger batch. Raises InputError where ranks, batch or stages
    do not divide, with what would, and for methods that work on units or fragments.
    """
    clips = config.recipe.epochs * data.train_videos if config.recipe.epochs is not None else (
        (config.recipe.steps or 1) * config.recipe.global_batch
    )  # fmt: skip
    if global_batch is not None and global_batch != config.recipe.global_batch:
        config = config.model_copy(update={"recipe": config.recipe.model_copy(update={"global_batch": global_batch})})
    if config.method.name in UNIT_METHODS:
        raise InputError(
            f"method {config.method.name} computes in units whose layers a plan does not count; plan method end_to_end, or "
            "measure it on a few ranks (`plan --timeline FILE.svg` draws the schedule of units that are dealt to ranks)"
        )
    if config.method.name == "progressive":
        raise InputError(
            "method progressive computes a clip fragment by fragment, but a plan counts one forward of the whole clip, so "
            "its memory and times would be wrong; `hpcvideo train CONFIG --dry-run` tells a rank's memory and operations"
        )
    split = split_over(config, nodes * ranks_per_node)
    config.recipe.batch_norm.statistic_ranks(split.data_parallel)
    if config.data.virtual_nodes is not None:
        check_virtual_nodes(config.data.virtual_nodes, split.global_batch, nodes)
    layers = tuple(count(config, split.micro_batch))
    stages = stage_count(config.method.name, config.method.options())
    cuts: tuple[range, ...] = (range(len(layers)),)
    adjacent = True
    if stages > 1:
        cuts = _cut(layers, stages)
        handed_on = [2.0 * split.accumulation * layers[cut.stop - 1].output_bytes for cut in cuts[:-1]]
        gradients = [4.0 * sum(layers[place].parameters for place in cut) for cut in cuts]
        adjacent = choose_grid(stages, split.data_parallel, ranks_per_node, handed_on, gradients).stages_adjacent
    return Job(
        config=config,
        data=data,
        nodes=nodes,
        ranks_per_node=ranks_per_node,
        split=split,
        steps_per_epoch=data.train_videos / split.global_batch,
        total_steps=max(1, math.ceil(clips / split.global_batch - 1e-9)),
        layers=layers,
        stage_layers=cuts,
        stages_adjacent=adjacent,
    )


def _cut(layers: Sequence[LayerWork], stages: int) -> tuple[range, ...]:
    """Stages as methods.pipeline.plan cuts them: equal operations, cheap activations handed on where there is a choice."""
    costs = [float(layer.forward_flops + layer.backward_flops) for layer in layers]
    handed_on = [0.0, *(float(layer.output_bytes) for layer in layers[:-1])]
    worth = [layer.parameters > 0 for layer in layers]
    return tuple(cut_into_stages(costs, stages, counts=worth, cut_costs=handed_on))
