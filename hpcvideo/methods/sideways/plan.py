"""What units cost and hand on, which rank computes which, and the messages that follow; counted on the meta device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from hpcvideo.distributed.placement import deal_to_stages
from hpcvideo.errors import InputError
from hpcvideo.methods.pipeline.layers import LayerCost
from hpcvideo.methods.sideways.exchange import Channel
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.mailbox import Key
from hpcvideo.methods.sideways.schedule import Rule
from hpcvideo.models.unit_network import UnitNetwork
from hpcvideo.models.unit_skips import FRAMES

_WORTH_MESSAGES = 0.05


def unit_shapes(network: UnitNetwork, frame: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Unit -> shape of its output for one frame of shape [batch, 3, height, width]; `network` is on the meta device."""
    values = {FRAMES: torch.empty(tuple(frame), device="meta")}
    with torch.no_grad():
        for name, inlets in network.inlets.items():
            values[name] = network.unit(name)(*(values[inlet.source] for inlet in inlets))
    return {name: tuple(value.shape) for name, value in values.items() if name != FRAMES}


def count_units(network: UnitNetwork, frame: Sequence[int]) -> list[LayerCost]:
    """The cost of each unit for one frame of shape [batch, 3, height, width]; `network` is on the meta device."""
    values = {FRAMES: torch.empty(tuple(frame), device="meta")}
    costs = []
    for name, inlets in network.inlets.items():
        unit = network.unit(name)
        leaves = [values[inlet.source].detach().requires_grad_(inlet.source != FRAMES) for inlet in inlets]
        saved = _SavedBytes({id(parameter) for parameter in unit.parameters()})
        with FlopCounterMode(display=False) as forward, saved:
            out: Tensor = unit(*leaves)
        parameters = list(unit.parameters())
        targets = [tensor for tensor in (*leaves, *parameters) if tensor.requires_grad]
        with FlopCounterMode(display=False) as backward:
            if targets:
                torch.autograd.grad(out, targets, torch.empty_like(out), allow_unused=True)
        values[name] = out.detach()
        costs.append(
            LayerCost(
                name=name,
                modules=tuple(
                    f"units.{name}.{module}" if module else f"units.{name}"
                    for module, owner in unit.named_modules()
                    if list(owner.parameters(recurse=False)) or list(owner.buffers(recurse=False))
                ),
                parameter_count=sum(parameter.numel() for parameter in parameters),
                parameter_bytes=sum(parameter.nbytes for parameter in parameters),
                forward_flops=forward.get_total_flops(),
                backward_flops=backward.get_total_flops(),
                saved_bytes=saved.total,
                output_shape=tuple(out.shape),
                output_bytes=out.nbytes,
                draws=unit.draws,
            )
        )
    return costs


def place_units(
    graph: UnitGraph, costs: Sequence[LayerCost], loads: Sequence[float], stages: int,
    placement: Sequence[Sequence[str]] | None = None, freely: bool = False,
) -> dict[str, int]:  # fmt: skip
    """Unit -> the stage that computes it.

    loads: of each unit over a clip (unit_times.unit_loads). placement: the units of each stage, in any order; None makes
    runs of neighbours whose dearest costs least. freely: or any other deal whose dearest stage costs a twentieth less, at
    the price of more messages (hpcvideo.distributed.placement.deal_to_stages). Raises InputError where a placement does not
    name every unit once, or there are more stages than units with parameters.
    """
    names = [cost.name for cost in costs]
    if placement is None:
        with_parameters = [cost.parameter_count > 0 for cost in costs]
        if stages > sum(with_parameters):
            raise InputError(
                f"method.stages = {stages}, but only {sum(with_parameters)} units have parameters; "
                f"use {sum(with_parameters)} or fewer"
            )
        flows = {
            (names.index(producer), names.index(consumer)): 2.0 * costs[names.index(producer)].output_bytes
            for producer, consumer in graph.pairs
        }
        dealt = deal_to_stages(loads, stages, flows, counts=with_parameters, gain=_WORTH_MESSAGES if freely else 1.0)
        return {names[item]: stage for stage, part in enumerate(dealt) for item in part}
    if len(placement) != stages:
        raise InputError(
            f"method.placement deals units to {len(placement)} stages, but method.stages = {stages}; "
            f"use method.stages={len(placement)}, or one list of units for each stage"
        )
    placed = [name for part in placement for name in part]
    faults = [f"leaves out {name}" for name in names if name not in placed]
    faults += [f"names {name}, which is no unit" for name in dict.fromkeys(placed) if name not in names]
    faults += [f"names {name} twice" for name in names if placed.count(name) > 1]
    faults += [f"has nothing for stage {stage}" for stage, part in enumerate(placement) if not part]
    if faults:
        raise InputError(f"method.placement {'; '.join(faults[:3])}; name each of the units {', '.join(names)} once")
    return {name: stage for stage, part in enumerate(placement) for name in part}


def channels_of(
    graph: UnitGraph, rule: Rule, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, ranks: Mapping[str, int],
    own: int,
) -> tuple[list[Channel], list[Channel]]:  # fmt: skip
    """(incoming, outgoing) of rank `own`. shapes: of the units' outputs. ranks: unit -> rank. A tag tells connection and
    direction."""
    incoming, outgoing = [], []
    for number, (producer, consumer) in enumerate(graph.pairs):
        if own not in (ranks[producer], ranks[consumer]) or ranks[producer] == ranks[consumer]:
            continue
        inlets = [inlet for inlet in graph.inlets[consumer] if inlet.source == producer]
        shape = shapes[producer]
        # In the delayed mode what came waits for its cotangents, where it came.
        wait_features = graph.match_lag(consumer) if rule == "delayed" else 0
        wait_cotangents = graph.match_lag(producer) if rule == "delayed" else 0
        features = Channel(
            Key("features", producer, consumer), 0, 1 + 2 * number, shape, dtype,
            2 + max(inlet.age for inlet in inlets) + wait_features,
        )  # fmt: skip
        cotangent = Channel(
            Key("cotangent", producer, consumer), 0, 2 + 2 * number,
            (len(inlets), *shape) if rule == "delayed" else shape, dtype, 2 + wait_cotangents,
        )  # fmt: skip
        if own == ranks[producer]:
            outgoing.append(_to(features, ranks[consumer]))
            incoming.append(_to(cotangent, ranks[consumer]))
        else:
            incoming.append(_to(features, ranks[producer]))
            outgoing.append(_to(cotangent, ranks[producer]))
    return incoming, outgoing


def _to(channel: Channel, peer: int) -> Channel:
    return Channel(channel.key, peer, channel.tag, channel.shape, channel.dtype, channel.slots)


class _SavedBytes(saved_tensors_hooks):
    """Adds up what autograd keeps on the meta device, parameters apart, each tensor once."""

    def __init__(self, parameters: set[int]) -> None:
        self._kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            if id(tensor) not in parameters:
                self._kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        super().__init__(keep, lambda tensor: tensor)

    @property
    def total(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())
