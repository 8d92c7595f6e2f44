"""When a unit updates, with which mean and at which rate: a training by the method against the definition, step by step,
where every unit's weights change on their own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.errors import InputError
from hpcvideo.methods import BatchSplit, MethodParts, create_method
from hpcvideo.methods.registry import check_method
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.models.unit import Unit
from hpcvideo.models.unit_network import UnitNetwork
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks import create_task
from tests.methods.sideways.small import CLASSES, make_network, units_of
from tests.methods.sideways.test_graph import frames_of_gradient

FRAMES, BATCH, SIZE, ACCUMULATION = 12, 2, 16, 2
RATES = (0.05, 0.02, 0.04)


def micro_batch(number: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (BATCH, FRAMES, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    return {"clips": pixels, "labels": labels, "weights": torch.ones(BATCH)}


def optimizer(module: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), 0.0, momentum=0.9)


def by_definition(network: UnitNetwork, boundary: str, every: int | str) -> tuple[dict[str, Unit], list[float]]:
    """The units after all rates' steps, and each step's loss. Steps count on over clips; a clip's own gradients are those
    whose frames are all of it, by walking every way; nothing is read over a seam where clips begin with empty messages."""
    units, graph = units_of(copy.deepcopy(network)), UnitGraph(network.inlets)
    optimizers = {name: optimizer(unit) for name, unit in units.items()}
    outputs: dict[tuple[str, int], Tensor] = {}
    messages: dict[tuple[str, str, int], Tensor] = {}
    gathered: dict[str, list[list[Tensor]]] = {name: [] for name in units}
    clips = [micro_batch(number) for number in range(ACCUMULATION * len(RATES))]
    pictures = torch.cat([normalise_clips(clip["clips"]) for clip in clips], dim=1)
    own: dict[tuple[str, int], list[int]] = {}
    for number in range(len(clips)):
        frames = set(range(number * FRAMES + 1, (number + 1) * FRAMES + 1))
        within = range(min(frames), max(frames) + 1 + (FRAMES if boundary == "stream" else 0))
        for name in units:
            own[name, number] = [step for step in within if frames_of_gradient(graph, name, step) <= frames]
    losses: list[list[float]] = [[] for _ in RATES]
    for step in range(1, FRAMES * len(clips) + 1):
        now = (step - 1) // FRAMES
        if boundary == "reset" and (step - 1) % FRAMES == 0:
            outputs.clear()
            messages.clear()
        for name, unit in units.items():
            read = [
                pictures[:, step - 1].contiguous() if inlet.source == "frames" else outputs.get((inlet.source, step - 1))
                for inlet in unit.inlets
            ]
            if any(one is None for one in read):
                continue
            leaves = [one.clone().requires_grad_() for one in read if one is not None]
            out = unit(*leaves)
            outputs[name, step] = out.detach()
            clip = next((number for number in (now, now - 1) if step in own.get((name, number), ())), None)
            if clip is None:
                continue
            cotangent, target = None, out
            if name == graph.top:
                target = functional.cross_entropy(out, clips[clip]["labels"])
                losses[now // ACCUMULATION].append(target.item())
            for child in graph.children(name):
                part = messages[child, name, step - 1]
                cotangent = part if cotangent is None else cotangent + part
            parameters = list(unit.parameters())
            found = torch.autograd.grad(target, [*leaves, *parameters], cotangent)
            for inlet, part in zip(unit.inlets, found, strict=False):
                messages[name, inlet.source, step] = part
            gathered[name].append(list(found[len(leaves) :]))
            number, count = own[name, clip].index(step) + 1, len(own[name, clip])
            if every == "clip":
                due = number == count and clip % ACCUMULATION == ACCUMULATION - 1
            else:
                due = number == count or number % int(every) == 0
            if due:
                for parameter, parts in zip(parameters, zip(*gathered[name], strict=True), strict=True):
                    parameter.grad = torch.stack(parts).mean(0)
                gathered[name].clear()
                optimizers[name].param_groups[0]["lr"] = RATES[now // ACCUMULATION]
                optimizers[name].step()
    return units, [sum(one) / len(one) for one in losses]


@pytest.mark.parametrize("name", ["chain", "over one"])
@pytest.mark.parametrize("boundary", ["reset", "stream"])
@pytest.mark.parametrize("every", [1, 3, "clip"])
def test_every_unit_updates_at_its_own_nth_gradient_and_at_a_clips_last_one(
    lone_rank: tuple[ProcessEnvironment, Device], name: str, boundary: str, every: int | str
) -> None:
    network = make_network(name, FRAMES, torch.float32)
    method = "skip_sideways" if name == "over one" else "sideways"
    place, device = lone_rank
    parts = MethodParts(
        model=copy.deepcopy(network), task=create_task("classification", {"num_classes": CLASSES}),
        clip_shape=(FRAMES, 3, SIZE, SIZE), optimizer=optimizer, gradient_clip=0.0, seed=0, place=place, device=device,
        split=BatchSplit(BATCH * ACCUMULATION, BATCH, ACCUMULATION, 1),
    )  # fmt: skip
    made = create_method(method, {"boundary": boundary, "update_every": every}, parts)
    losses = []
    for step, rate in enumerate(RATES):
        made.set_learning_rate(rate)
        batches = [micro_batch(step * ACCUMULATION + micro) for micro in range(ACCUMULATION)]
        losses.append(made.step(iter(batches), step, PhaseClock()).loss)
    units, expected = by_definition(network, boundary, every)
    assert losses == pytest.approx(expected, rel=1e-4)
    ours = made.weights()
    for unit, module in units.items():
        for key, value in module.named_parameters():
            before = dict(network.unit(unit).named_parameters())[key]
            assert not torch.equal(value, before)
            torch.testing.assert_close(ours[f"units.{unit}.{key}"], value.detach(), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("value", [0, -1, "often", 1.5, True])
def test_another_cycle_is_refused_in_one_sentence(value: object) -> None:
    told = rf"^method\.update_every: {value!r} is neither `clip` nor a number of gradients from 1 on$"
    with pytest.raises(InputError, match=told):
        check_method("sideways", {"update_every": value})
