"""The delayed mode has the exact gradient of back-propagation through the graph with its delays, for any video."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.models.unit import Inlet, Unit
from hpcvideo.models.unit_network import UnitNetwork
from tests.methods.sideways.small import NETWORKS, label_loss, make_network, run, units_of, video

FRAMES = 14


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("frames", [14, 30])
def test_its_gradients_are_those_of_the_unrolled_graph(name: str, frames: int) -> None:
    """In fp64, for a video that moves; `outputs` computes the whole clip at once, and autograd goes back through it."""
    network, clip = make_network(name, frames), video(frames)
    record = run(network, [clip], rule="delayed")
    outputs = network.outputs(clip)
    total = torch.stack([label_loss(outputs[:, step]) for step in range(outputs.shape[1])]).sum()
    assert len(record.losses) == outputs.shape[1]
    torch.testing.assert_close(torch.stack(record.losses).sum(), total, rtol=1e-12, atol=0)
    for unit, module in units_of(network).items():
        exact = torch.autograd.grad(total, list(module.parameters()), retain_graph=True)
        ours = record.total(unit)
        for (parameter, _), gradient in zip(module.named_parameters(), exact, strict=True):
            torch.testing.assert_close(ours[parameter], gradient, rtol=1e-10, atol=1e-10 * float(gradient.abs().max()))


def test_sideways_itself_has_not_the_exact_gradient_of_a_video_that_moves() -> None:
    network, clip = make_network("skips", FRAMES + 10), video(FRAMES + 10)
    exact, ours = (run(network, [clip], rule=rule).total("conv1") for rule in ("delayed", "sideways"))  # type: ignore[arg-type]
    assert not torch.allclose(exact["body.0.weight"], ours["body.0.weight"], rtol=0.05)


@pytest.mark.parametrize("name", ["chain", "skips", "shifted"])
def test_in_a_stream_every_clip_has_its_own_exact_gradient(name: str) -> None:
    network = make_network(name, FRAMES)
    clips = [video(FRAMES, seed=seed) for seed in (1, 2, 3, 4)]
    record = run(network, clips, boundary="stream", rule="delayed")
    alone = run(network, [clips[1]], rule="delayed")
    for unit in network.units:
        own: dict[str, torch.Tensor] = {}
        for (who, step), gradient in record.gradients.items():
            if who == unit and (step - 1) // FRAMES - record.ago[who, step] == 1:
                own = {key: own[key] + value if own else value for key, value in gradient.items()}
        expected = alone.total(unit)
        for key, value in own.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["chain", "skips", "shifted"])
def test_what_it_keeps_grows_with_the_depth_and_not_with_the_video(name: str) -> None:
    sizes = []
    for frames in (32, 64):
        network = make_network(name, frames)
        most = [0]

        def watch(executor, most=most):  # type: ignore[no-untyped-def]
            turn = executor.mailbox.turn

            def turned() -> None:
                most[0] = max(most[0], executor.size)
                turn()

            executor.mailbox.turn = turned

        run(network, [video(frames)], rule="delayed", change=watch)
        sizes.append(most[0])
    assert sizes[0] == sizes[1] > 0


def test_inputs_wait_twice_as_many_steps_as_there_are_units_above() -> None:
    graph = UnitGraph(make_network("chain", 4).inlets)
    depth = len(graph.units)
    assert [graph.match_lag(unit) for unit in graph.units] == [2 * (depth - number) for number in range(1, depth + 1)]


def test_a_unit_computed_again_draws_the_same_and_counts_its_statistics_once() -> None:
    """Each output is made anew a fixed number of steps later; dropout must fall alike, BatchNorm must not count it twice."""
    frames = 12
    torch.manual_seed(2)
    sources = {"first": "frames", "middle": "first", "top": "middle"}
    bodies = {
        "first": nn.Conv2d(3, 3, 1),
        "middle": nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5)),
        "top": nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    }
    network = UnitNetwork({name: Unit([Inlet(sources[name])], body) for name, body in bodies.items()}, 3, frames).double()
    made: list[torch.Tensor] = []
    network.unit("middle").register_forward_hook(lambda module, given, out: made.append(out.detach().clone()))
    record = run(network, [video(frames, size=4)], rule="delayed")
    lag = UnitGraph(network.inlets).match_lag("middle")
    assert lag == 2
    again = len(record.steps("middle"))
    assert len(made) == 2 * frames == 2 * again
    # Step by step: the forward of a step, then, from step 2 + lag on, that of `lag` steps before again.
    order: list[tuple[str, int]] = []
    for step in range(2, record.executor.schedule.steps + 1):
        order += [("new", step)] if step <= frames + 1 else []
        order += [("again", step - lag)] if step in record.steps("middle") else []
    seen = dict(zip(order, made, strict=True))
    for step in range(2, frames + 2):
        assert torch.equal(seen["new", step], seen["again", step])
        assert (seen["new", step] == 0).any()
    norm = bodies["middle"][1]  # type: ignore[index]
    assert norm.num_batches_tracked == frames
