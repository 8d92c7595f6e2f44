"""What the units of a network cost a rank over a clip: seconds measured on the device, or counted operations."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from hpcvideo.distributed.device import Device
from hpcvideo.methods.pipeline.layers import LayerCost
from hpcvideo.methods.sideways.plan import unit_shapes
from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.methods.sideways.units import UnitWorker
from hpcvideo.models.unit_network import UnitNetwork
from hpcvideo.models.unit_skips import FRAMES

_TIMED_ROUNDS = 5


def time_units(
    network: UnitNetwork, frame: Sequence[int], device: Device, computing: AbstractContextManager[Any] | None = None
) -> list[tuple[float, float]]:
    """(seconds of the forward, seconds of the vector-Jacobian product and of adding up its gradient) of each unit for one
    frame of shape [batch, 3, height, width].

    The least of five rounds over all units after one that is not timed: what disturbs a machine only slows it. On one thread
    of a CPU it is processor time, to which other processes add little. computing: as for UnitWorker. Network and random
    draws are left as they are: a copy is timed, with random messages.
    """
    trial = copy.deepcopy(network).to(device.torch_device).train()
    shapes = {FRAMES: tuple(frame), **unit_shapes(copy.deepcopy(network).to("meta"), frame)}
    workers = [UnitWorker(name, trial.unit(name), computing=computing) for name in trial.inlets]
    least = [(float("inf"), float("inf"))] * len(workers)
    with torch.random.fork_rng([device.torch_device] if device.torch_device.type == "cuda" else []):
        messages = {name: torch.rand(shape, device=device.torch_device) for name, shape in shapes.items()}
        for turn in range(1 + _TIMED_ROUNDS):
            for place, worker in enumerate(workers):
                inputs = [messages[inlet.source] for inlet in worker.unit.inlets]
                found = _timed(worker, inputs, messages[worker.name], device)
                if turn:
                    least[place] = min(least[place][0], found[0]), min(least[place][1], found[1])
    return least


def _timed(worker: UnitWorker, inputs: Sequence[Tensor], cotangent: Tensor, device: Device) -> tuple[float, float]:
    alone = device.torch_device.type == "cpu" and torch.get_num_threads() == 1
    now = time.process_time if alone else time.perf_counter
    device.synchronise()
    started = now()
    leaves, out = worker.forward(inputs, None, differentiable=True)
    device.synchronise()
    between = now()
    worker.pull_back(out, leaves, cotangent)
    device.synchronise()
    return between - started, now() - between


def unit_loads(schedule: ClipSchedule, forward: Sequence[float], backward: Sequence[float]) -> list[float]:
    """What each unit costs over a clip, from its cost of one frame forward and back (seconds or operations).

    Units far below the top pull back at fewer steps of a clip than they go forward. The delayed rule goes forward once more
    at the input that a cotangent belongs to, but for the top, whose is the newest.
    """
    loads = []
    for unit, up, down in zip(schedule.graph.units, forward, backward, strict=True):
        late = int(schedule.streams)  # a clip in the middle of a stream
        goes = sum(schedule.forwards(unit, step, late) for step in range(1, schedule.steps + 1))
        pulls = len(schedule.pull_steps(unit))
        again = schedule.rule == "delayed" and unit != schedule.graph.top
        loads.append((goes + pulls * again) * up + pulls * down)
    return loads


def counted_loads(schedule: ClipSchedule, costs: Sequence[LayerCost]) -> list[float]:
    """`unit_loads` in operations."""
    forward, backward = ([float(getattr(cost, part)) for cost in costs] for part in ("forward_flops", "backward_flops"))
    return unit_loads(schedule, forward, backward)
