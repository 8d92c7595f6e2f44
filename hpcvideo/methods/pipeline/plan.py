"""The plan of a pipeline run: stages, ranks, memory and bubble; a pure function of model, shapes and scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from hpcvideo.distributed.placement import balance, bubble_share, cut_into_stages, nearest_divisors
from hpcvideo.distributed.topology import StageGrid, choose_grid, node_traffic
from hpcvideo.errors import InputError
from hpcvideo.methods.pipeline.layers import LayerCost
from hpcvideo.methods.protocol import BatchSplit


@dataclass(frozen=True)
class StagePlan:
    """One stage. Bytes are those of one rank, operations those of one micro-batch (forward and backward).

    cost_share: its part of the cost by which stages were balanced. activation_bytes: what it keeps for the backward of all
    micro-batches that are in it at once (`in_flight`), and the buffers in which it receives.
    """

    layers: tuple[str, ...]
    modules: tuple[str, ...]
    cost_share: float
    flops: int
    parameter_count: int
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    in_flight: int
    activation_bytes: int
    output_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Parameters, gradients, optimizer state and activations; the framework's own workspace comes on top."""
        return self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes


@dataclass(frozen=True)
class PipelinePlan:
    """Stages, where they run, and what that costs. `balance` and `bubble` as in hpcvideo.distributed.placement."""

    stages: tuple[StagePlan, ...]
    grid: StageGrid
    balance: float
    bubble: float
    busiest_node_bytes: float
    """What the node that sends most sends to others in a step."""
    handed_on: Mapping[tuple[int, int], float] = field(default_factory=dict)
    """Bytes that two stages of a replica (the lower number first) send each other in a step, both ways."""
    order: tuple[str, ...] = ()
    """All layers in the network's order, where stages may hold others than runs of neighbours; else empty."""

    @property
    def held(self) -> list[str]:
        """The layers of each stage in words."""
        stages = [stage.layers for stage in self.stages]
        return layers_in_words(stages, self.order or [layer for layers in stages for layer in layers])


def bubble_warning(stages: int, micro_batches: int) -> str | None:
    """One sentence where there are fewer micro-batches than stages, which is allowed but wasteful; else None."""
    if micro_batches >= stages:
        return None
    return (
        f"{micro_batches} micro-batches a step are fewer than the {stages} stages: a stage idles "
        f"{bubble_share(stages, micro_batches):.0%} of a step ((S - 1) / (M + S - 1)); with {4 * stages} micro-batches "
        f"it is {bubble_share(stages, 4 * stages):.0%} (a smaller recipe.micro_batch, or fewer ranks)"
    )


def replica_count(stages: int, world_size: int) -> int:
    """Replicas of `stages` stages on so many ranks. Raises InputError with the nearest choices where they do not divide."""
    if world_size % stages == 0:
        return world_size // stages
    choices = [str(value) for value in nearest_divisors(world_size, stages, world_size)]
    ranks = [str(value) for value in (world_size // stages * stages, -(-world_size // stages) * stages) if value]
    raise InputError(
        f"{world_size} ranks do not divide into pipelines of method.stages = {stages}; "
        f"use {' or '.join(choices)} stages, or {' or '.join(ranks)} ranks"
    )


def cut_layers(layers: Sequence[LayerCost], costs: Sequence[float], stages: int) -> list[range]:
    """Stages of nearly equal cost, each with parameters; the cheapest activations are handed on where costs leave a choice.

    costs: by layer, in the order of `layers`. Raises InputError where there are more stages than layers with parameters.
    """
    with_parameters = [layer.parameter_count > 0 for layer in layers]
    if stages > sum(with_parameters):
        raise InputError(
            f"method.stages = {stages}, but the model has only {sum(with_parameters)} layers with parameters; "
            f"use {sum(with_parameters)} or fewer"
        )
    handed_on = [0.0, *(float(layer.output_bytes) for layer in layers[:-1])]
    return cut_into_stages(costs, stages, counts=with_parameters, cut_costs=handed_on)


def plan_pipeline(
    layers: Sequence[LayerCost],
    costs: Sequence[float],
    stages: int,
    split: BatchSplit,
    ranks_per_node: int,
    optimizer_copies: float = 1.0,
    exchanged: float = 1.0,
) -> PipelinePlan:
    """The plan of `stages` stages x split.data_parallel replicas.

    layers: counted for one micro-batch of split.micro_batch clips. costs: by layer, what stages are balanced by.
    optimizer_copies: how many numbers the optimizer keeps a parameter (1 for momentum). exchanged: bytes that are reduced
    over the replicas, as a share of the gradients' own (a half with 16 bits on the wire); what is told of the traffic
    depends on it, not who sits where.
    Raises InputError as `cut_layers`.
    """
    parts = cut_layers(layers, costs, stages)
    received = [0, *(layers[part.start - 1].output_bytes for part in parts[1:])]
    planned = []
    for number, part in enumerate(parts):
        own = [layers[place] for place in part]
        parameters = sum(layer.parameter_bytes for layer in own)
        in_flight = min(stages - number, split.accumulation)
        # A stage keeps what it received and works on a copy, so that layers may write in place.
        kept = sum(layer.saved_bytes for layer in own) + received[number]
        planned.append(
            StagePlan(
                layers=tuple(layer.name for layer in own),
                modules=tuple(module for layer in own for module in layer.modules),
                cost_share=sum(costs[place] for place in part) / (sum(costs) or 1.0),
                flops=sum(layer.flops for layer in own),
                parameter_count=sum(layer.parameter_count for layer in own),
                parameter_bytes=parameters,
                gradient_bytes=parameters,
                optimizer_bytes=round(parameters * optimizer_copies),
                in_flight=in_flight,
                activation_bytes=in_flight * kept + own[-1].output_bytes * (number < stages - 1),
                output_bytes=own[-1].output_bytes,
            )
        )
    # Activations forward and as many bytes of gradients back, a micro-batch each.
    handed_on = [2.0 * split.accumulation * stage.output_bytes for stage in planned[:-1]]
    gradients = [float(stage.gradient_bytes) for stage in planned]
    grid = choose_grid(stages, split.data_parallel, ranks_per_node, handed_on, gradients)
    return PipelinePlan(
        stages=tuple(planned),
        grid=grid,
        balance=balance([stage.cost_share for stage in planned]),
        bubble=bubble_share(stages, split.accumulation),
        busiest_node_bytes=max(node_traffic(grid, handed_on, [exchanged * own for own in gradients])),
        handed_on=dict(zip(pairwise(range(stages)), handed_on, strict=True)),
    )


def layers_in_words(stages: Sequence[Sequence[str]], order: Sequence[str], between: str = " .. ") -> list[str]:
    """The layers of each stage, runs of neighbours by their ends, e.g. `stem .. layer2` or `conv1, conv3 .. head`. order: of
    all layers; between: the ends of a run."""
    home = {layer: number for number, layers in enumerate(stages) for layer in layers}
    words: list[list[str]] = [[] for _ in stages]
    for number, run in groupby(order, key=home.__getitem__):
        first, *others = run
        words[number].append(f"{first}{between}{others[-1]}" if others else first)
    return [", ".join(runs) for runs in words]


def stage_spans(grid: StageGrid) -> list[str]:
    """The ranks of each stage in words, e.g. `0-255` or `0, 6 .. 1530`."""
    spans = []
    for stage in range(grid.stages):
        ranks = grid.stage_ranks(stage)
        gaps = {right - left for left, right in pairwise(ranks)}
        if gaps <= {1}:
            spans.append(f"{ranks[0]}-{ranks[-1]}" if len(ranks) > 1 else str(ranks[0]))
        else:
            few = ", ".join(map(str, ranks if len(ranks) <= 3 else ranks[:2]))
            spans.append(few if len(ranks) <= 3 else f"{few} .. {ranks[-1]}")
    return spans
