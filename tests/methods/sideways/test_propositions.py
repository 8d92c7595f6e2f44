"""What follows from the definition of Sideways (arXiv 2001.06232, 2106.08318): each statement bit for bit where it can be.

Frozen weights unless said otherwise; frame t is consumed at step t, every connection takes one step.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from hpcvideo.methods.sideways.executor import Executor
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.mailbox import Mailbox
from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.methods.sideways.units import UnitWorker
from hpcvideo.models.unit import Classifier, Inlet, Unit
from hpcvideo.models.unit_network import UnitNetwork
from tests.methods.sideways.reference import Reference
from tests.methods.sideways.small import (
    CLASSES,
    NETWORKS,
    Record,
    equal,
    label_loss,
    linear_chain,
    make_network,
    run,
    still,
    units_of,
    video,
)

FRAMES = 24


def squared(output: Tensor, ago: int = 0) -> Tensor:
    return 0.5 * (output - 1).square().sum()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_output_and_pseudo_gradient_is_that_of_the_definition_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    network = make_network(name, FRAMES, dtype)
    clip = video(FRAMES, dtype=dtype)
    record = run(network, [clip])
    reference = Reference(units_of(network), lambda step: clip[:, step - 1].contiguous(), label_loss)
    assert len(record.gradients) > len(network.units)
    for step, output in record.outputs.items():
        assert torch.equal(output, reference.output("head", step))
    for (unit, step), gradient in record.gradients.items():
        assert equal(gradient, reference.gradient(unit, step)), (unit, step)


@pytest.mark.parametrize("name", ["chain", "skips", "over one", "shifted"])
def test_p1_on_a_still_video_it_is_back_propagation_from_the_first_gradient_on(name: str) -> None:
    network, clip = make_network(name, FRAMES), still(FRAMES)
    graph = UnitGraph(network.inlets)
    record = run(network, [clip])
    # The synchronous network: unit by unit with vector-Jacobian products, children added up in their order.
    units, values = units_of(network), {"frames": clip[:, 0].contiguous()}
    made: dict[str, tuple[list[Tensor], Tensor]] = {}
    for unit, module in units.items():
        leaves = [values[inlet.source].detach().requires_grad_() for inlet in module.inlets]
        made[unit] = leaves, module(*leaves)
        values[unit] = made[unit][1].detach()
    messages: dict[tuple[str, str], Tensor] = {}
    for unit in reversed(units):
        leaves, out = made[unit]
        children = [child for child, module in units.items() if any(inlet.source == unit for inlet in module.inlets)]
        cotangent, target = None, out
        if unit == "head":
            target = label_loss(out)
        else:
            for child in children:
                part = messages[child, unit]
                cotangent = part if cotangent is None else cotangent + part
        parameters = dict(units[unit].named_parameters())
        found = torch.autograd.grad(target, [*leaves, *parameters.values()], cotangent)
        for inlet, part in zip(units[unit].inlets, found, strict=False):
            key = unit, inlet.source
            messages[key] = messages[key] + part if key in messages else part
        exact = dict(zip(parameters, found[len(leaves) :], strict=True))
        longest_up = max(graph.descents(unit)[graph.top])
        assert record.steps(unit)[0] == graph.longest(graph.top) + longest_up
        assert record.steps(unit) == list(range(record.steps(unit)[0], FRAMES + 1))
        for step in record.steps(unit):
            assert equal(record.gradients[unit, step], exact), (unit, step)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_p2_one_unit_is_back_propagation_frame_by_frame_whatever_the_updates(momentum: float) -> None:
    def single() -> UnitNetwork:
        torch.manual_seed(1)
        return UnitNetwork({"head": Unit([Inlet("frames")], Classifier(3, CLASSES, 0.0, "max"))}, CLASSES, 6)

    ours, plain = single(), single()
    worker = UnitWorker(
        "head", ours.unit("head"), torch.optim.SGD(ours.unit("head").parameters(), 0.1, momentum=momentum)
    )
    clip = video(6, dtype=torch.float32)
    executor = Executor(
        ClipSchedule(UnitGraph(ours.inlets), 6), {"head": worker}, after_gradient=lambda worker, step, ago: worker.update()
    )
    optimizer = torch.optim.SGD(plain.parameters(), 0.1, momentum=momentum)
    executor.begin_clip()
    for step in range(1, 7):
        executor.step(step, clip[:, step - 1], label_loss)
        optimizer.zero_grad()
        label_loss(plain.units["head"](clip[:, step - 1])).backward()
        optimizer.step()
        assert equal(dict(ours.named_parameters()), dict(plain.named_parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_p3_the_top_unit_has_the_true_gradient_of_its_frame(dtype: torch.dtype) -> None:
    network, clip = make_network("chain", FRAMES, dtype), video(FRAMES, dtype=dtype)
    record = run(network, [clip])
    depth = len(network.units)
    assert record.steps("head") == list(range(depth, FRAMES + 1))
    for step in record.steps("head"):
        features = clip[:, step - depth].contiguous()  # frame step - D + 1, counted from 1
        with torch.no_grad():
            for unit in list(units_of(network).values())[:-1]:
                features = unit(features)
        parameters = dict(network.unit("head").named_parameters())
        found = torch.autograd.grad(label_loss(network.unit("head")(features)), list(parameters.values()))
        assert equal(record.gradients["head", step], dict(zip(parameters, found, strict=True)))


def index_law_error(record: Record, network: UnitNetwork, clip: Tensor) -> float:
    """The largest difference to G_i^t = g_i(frame t - 2D + i + 1) outer h_(i-1)(frame t - i + 1), in NumPy."""
    matrices = [unit.body.weight.detach().numpy()[:, :, 0, 0] for unit in units_of(network).values()]
    depth, worst = len(matrices), 0.0
    frames = clip.numpy()[0, :, :, 0, 0]

    def activation(unit: int, frame: int) -> np.ndarray:
        value = frames[frame - 1]
        for matrix in matrices[:unit]:
            value = matrix @ value
        return value

    def cotangent(unit: int, frame: int) -> np.ndarray:
        value = activation(depth, frame) - 1
        for matrix in reversed(matrices[unit:]):
            value = matrix.T @ value
        return value

    for (name, step), gradient in record.gradients.items():
        unit = int(name.removeprefix("unit"))
        expected = np.outer(cotangent(unit, step - 2 * depth + unit + 1), activation(unit - 1, step - unit + 1))
        worst = max(worst, float(np.abs(gradient["body.weight"].numpy()[:, :, 0, 0] - expected).max()))
    return worst


def test_p4_loss_and_input_of_a_gradient_are_of_the_frames_that_the_index_law_says() -> None:
    network = linear_chain(4)
    clip = video(12, batch=1, size=1)
    record = run(network, [clip], loss=squared)
    assert {unit: record.steps(unit)[0] for unit in network.units} == {"unit1": 7, "unit2": 6, "unit3": 5, "unit4": 4}
    assert index_law_error(record, network, clip) < 1e-12


def test_p11_a_sweep_that_reads_messages_of_its_own_step_breaks_the_index_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gauss-Seidel instead of Jacobi: what must not happen is caught by the statement above."""

    def at_once(self: Mailbox, key: object, message: Tensor) -> None:
        self._read[key] = message  # type: ignore[index]
        self._write[key] = message  # type: ignore[index]

    monkeypatch.setattr(Mailbox, "post", at_once)
    network, clip = linear_chain(4), video(12, batch=1, size=1)
    assert index_law_error(run(network, [clip], loss=squared), network, clip) > 1e-3


def test_p5_the_error_against_back_propagation_is_of_first_order_in_the_motion() -> None:
    network = linear_chain(4)
    for unit in units_of(network).values():
        unit.body = nn.Sequential(unit.body, nn.Tanh())
    start, motion = video(1, batch=1, size=1, seed=1), video(1, batch=1, size=1, seed=2)
    ratios: dict[str, list[float]] = {name: [] for name in network.units}
    for epsilon in (1e-2, 1e-3, 1e-4):
        clip = start + epsilon * torch.arange(12).view(1, -1, 1, 1, 1) * motion
        record = run(network, [clip], loss=squared)
        for number, name in enumerate(network.units, start=1):
            step = 12
            exact = torch.autograd.grad(squared(synchronous(network, clip[:, step - number])), weights(network, name))
            error = (record.gradients[name, step]["body.0.weight"] - exact[0]).norm().item()
            ratios[name].append(error / epsilon)
    assert ratios["unit4"] == [0.0] * 3
    for name in ("unit1", "unit2", "unit3"):
        assert ratios[name][2] == pytest.approx(ratios[name][1], rel=0.02)
        assert ratios[name][2] > 1e-3


def synchronous(network: UnitNetwork, frame: Tensor) -> Tensor:
    for unit in units_of(network).values():
        frame = unit(frame)
    return frame


def weights(network: UnitNetwork, name: str) -> list[nn.Parameter]:
    return list(network.unit(name).parameters())


@pytest.mark.parametrize("name", ["skips", "shifted"])
def test_p6_on_a_still_video_it_is_the_total_derivative_through_the_unrolled_graph(name: str) -> None:
    """Weights tied over all steps, by finite differences of the loss at one step."""
    network, clip = make_network(name, FRAMES), still(FRAMES)
    record = run(network, [clip])
    generator = torch.Generator().manual_seed(0)

    def last_loss() -> float:
        with torch.no_grad():
            return float(label_loss(network.outputs(clip)[:, -1]))

    for unit, module in units_of(network).items():
        parameter_name, parameter = max(module.named_parameters(), key=lambda one: one[1].numel())
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        sides, width = [], 1e-5
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * width * direction
            sides.append(last_loss())
            with torch.no_grad():
                parameter -= sign * width * direction
        slope = (sides[0] - sides[1]) / (2 * width)
        ours = float((record.gradients[unit, FRAMES][parameter_name] * direction).sum())
        assert ours == pytest.approx(slope, rel=1e-5, abs=1e-8), unit


@pytest.mark.parametrize("name", NETWORKS)
def test_p7_and_p8_a_frame_alters_the_outputs_that_its_path_lengths_tell_and_no_other(name: str) -> None:
    network, clip = make_network(name, FRAMES), video(FRAMES)
    graph = UnitGraph(network.inlets)
    altered, frame = clip.clone(), 9
    altered[:, frame - 1] += 1.0
    before, after = run(network, [clip]), run(network, [altered])
    changed = {step for step, output in before.outputs.items() if not torch.equal(output, after.outputs[step])}
    assert changed == {frame + length - 1 for length in graph.path_lengths(graph.top)}
    for step in before.outputs:
        assert (frame in graph.visible_frames(graph.top, step)) == (step in changed)
    if name == "chain":
        assert changed == {frame + len(network.units) - 1}
    for unit in network.units:
        assert record_first(before, unit) == graph.first_gradient(unit)


def record_first(record: Record, unit: str) -> int:
    return min(step for name, step in record.gradients if name == unit)


def test_p15_a_skip_that_is_relayed_through_the_units_between_would_bring_no_other_frame() -> None:
    """Units that hand a skip on add their steps to it: all ways are as long, and frames of different times never meet."""
    direct = {"a": [Inlet("frames")], "b": [Inlet("a")], "c": [Inlet("b")], "d": [Inlet("c"), Inlet("a", 0, "add")]}
    relayed = {**direct, "r1": [Inlet("a")], "r2": [Inlet("r1")]}
    order = ("a", "b", "r1", "c", "r2", "d")
    relayed["d"] = [Inlet("c"), Inlet("r2", 0, "add")]
    changes = {}
    for kind, inlets in (("direct", direct), ("relayed", {name: relayed[name] for name in order})):
        torch.manual_seed(0)
        units = {}
        for name, read in inlets.items():
            body = nn.Identity() if name.startswith("r") else nn.Conv2d(3, 3, 1, bias=False)
            units[name] = Unit(read, body)
        network, clip = UnitNetwork(units, 3, 12).double(), video(12, batch=1, size=1)
        altered = clip.clone()
        altered[:, 4] += 1.0
        before, after = run(network, [clip], loss=squared), run(network, [altered], loss=squared)
        changes[kind] = [step - 5 for step, out in before.outputs.items() if not torch.equal(out, after.outputs[step])]
    assert changes == {"direct": [1, 3], "relayed": [3]}


def saved_and_sent(network: UnitNetwork, clip: Tensor) -> tuple[int, int]:
    """(most bytes that autograd kept at once, most bytes of messages)."""
    alive, most = [0], [0, 0]

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor
            alive[0] += tensor.nbytes
            most[0] = max(most[0], alive[0])

        def __del__(self) -> None:
            alive[0] -= self.tensor.nbytes

    def watch(executor: Executor) -> None:
        turn = executor.mailbox.turn

        def turned() -> None:
            most[1] = max(most[1], executor.size)
            turn()

        executor.mailbox.turn = turned  # type: ignore[method-assign]

    with saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        run(network, [clip], change=watch)
    return most[0], most[1]


@pytest.mark.parametrize("name", ["chain", "skips", "shifted"])
def test_p9_memory_does_not_grow_with_the_clip_and_that_of_the_unrolled_graph_does(name: str) -> None:
    measured, unrolled = [], []
    for frames in (16, 64):
        network = make_network(name, frames)
        measured.append(saved_and_sent(network, video(frames)))
        kept: list[int] = []

        def keep(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.nbytes)
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            label_loss(network(video(frames)))
        unrolled.append(sum(kept))
    assert measured[0] == measured[1]
    assert min(measured[0]) > 0
    assert unrolled[1] > 2.5 * unrolled[0]


def test_p12_outputs_and_gradients_of_a_clip_take_the_steps_that_the_counts_say() -> None:
    frames = 11
    network = make_network("chain", frames)
    depth = len(network.units)
    record = run(network, [video(frames)], boundary="drain")
    assert record.executor.schedule.steps == frames + 2 * depth - 2
    outputs = record.executor.schedule.output_steps
    assert outputs.stop - 1 == frames + depth - 1
    assert len(outputs) == frames
    for number, unit in enumerate(network.units, start=1):
        assert record.steps(unit) == list(range(2 * depth - number, frames + 2 * depth - number))
    # Ways of different lengths: every unit still has as many gradients as there are frames.
    skipping = run(make_network("skips", frames), [video(frames)], boundary="drain")
    assert {len(skipping.steps(unit)) for unit, _ in skipping.gradients} == {frames}
    streamed = run(network, [video(frames)], boundary="stream")
    assert streamed.executor.schedule.steps == frames


@pytest.mark.parametrize("name", ["chain", "skips", "late", "shifted"])
def test_p13_gradients_kept_in_a_stream_do_not_depend_on_the_clips_around(name: str) -> None:
    network = make_network(name, FRAMES)
    depth = len(network.units)
    first, middle, last, other = (video(FRAMES, seed=seed) for seed in (1, 2, 3, 4))
    totals = []
    for clips in ([first, middle, last], [last, middle, other]):
        record = run(network, clips, boundary="stream")
        for number, unit in enumerate(network.units, start=1):
            own = [
                gradient
                for (who, step), gradient in record.gradients.items()
                if who == unit and (step - 1) // FRAMES - record.ago[who, step] == 1  # of the middle clip
            ]
            count = len(record.executor.schedule.gradient_steps(unit))
            assert len(own) == count
            if name == "chain":
                assert count == FRAMES - 2 * (depth - number)
            totals.append((unit, {key: sum(one[key] for one in own) for key in own[0]}))
    half = len(totals) // 2
    for (unit, one), (_, another) in zip(totals[:half], totals[half:], strict=True):
        assert equal(one, another), unit


def test_p13_without_the_mask_the_clips_would_mix() -> None:
    """The statement above would see it: gradients one step too early depend on the clip before."""
    network = make_network("chain", FRAMES)
    middle = video(FRAMES, seed=2)

    def wider(executor: Executor) -> None:
        def widen() -> None:
            for spans in (executor.schedule._gradient_steps, executor.schedule._pull_steps):
                for unit, steps in spans.items():
                    spans[unit] = range(steps.start - 1, steps.stop)
            executor.clips_before += 1

        executor.end_clip = widen  # type: ignore[method-assign]

    found = []
    for before in (video(FRAMES, seed=1), video(FRAMES, seed=3)):
        record = run(network, [before, middle], boundary="stream", change=wider)
        found.append(record.gradients["conv1", FRAMES + 2 * len(network.units) - 2])
    assert not equal(*found)


@pytest.mark.parametrize("name", ["chain", "skips", "shifted"])
@pytest.mark.parametrize("rule", ["sideways", "delayed"])
def test_p14_gradients_are_linear_in_the_loss_bit_for_bit(name: str, rule: str) -> None:
    network, clip = make_network(name, FRAMES), video(FRAMES)
    one = run(network, [clip], rule=rule)  # type: ignore[arg-type]
    twice = run(network, [clip], rule=rule, loss=lambda out, ago: 2 * label_loss(out))  # type: ignore[arg-type]
    none = run(network, [clip], rule=rule, loss=lambda out, ago: 0 * label_loss(out))  # type: ignore[arg-type]
    for key, gradient in one.gradients.items():
        assert equal({name: 2 * value for name, value in gradient.items()}, twice.gradients[key])
        assert not any(value.any() for value in none.gradients[key].values())
