"""The parts of a step: one by hand, all of them adding up, and better machines never slower."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcvideo.config import RunConfig
from hpcvideo.scaling.model.collectives import Grid, allreduce_seconds
from hpcvideo.scaling.model.job import Job, job_at
from hpcvideo.scaling.model.layer_work import LayerWork
from hpcvideo.scaling.model.run import run_parts
from hpcvideo.scaling.model.step import pipeline_run, step_parts
from tests.scaling.model.example_job import FACTS, SYSTEM, config, job, layers
from tests.scaling.model.example_system import MORE_IS_FASTER, MORE_IS_SLOWER

PIPELINE = {"name": "pipeline", "stages": 2}
FREE = {
    "kernel_seconds": 0.0, "gpu_memory_bandwidth": 1e30, "host_to_device_bandwidth": 1e30, "intra_bandwidth": 1e30,
    "overlap_slowdown": 1.0, "rank_sigma": 0.0, "tail_probability": 0.0, "collective_efficiency": 1.0,
    "decode_frames_per_core": 1e30, "pfs_node_read": 1e30, "pfs_read": 1e30,
}  # fmt: skip
"""What makes all but arithmetic and the network cost nothing."""


def one_layer(config: RunConfig, micro_batch: int) -> tuple[LayerWork, ...]:
    """100 GFLOP forward and 200 back for each clip; 25 million parameters in one tensor."""
    return (
        LayerWork("all", 1e11 * micro_batch, 2e11 * micro_batch, 0, 0, 2, 25_000_000, 0, 0, parameter_sizes=(25_000_000,)),
    )


def test_two_nodes_of_one_rank_take_what_one_works_out_by_hand() -> None:
    values = {
        **SYSTEM,
        **FREE,
        "gpu_peak_fp32": 10e12,
        "compute_efficiency_fp32": 0.8,
        "inter_latency": 0.001,
        "inter_bandwidth": 10e9,
    }
    made = job_at(config(), 2, 1, FACTS, 32, one_layer)
    step = step_parts(made, values)
    # 8 clips x 1e11 / 8e12 = 0.1 s forward, twice; 0.2 s back, twice. One bucket of 100 MB, full when the second backward
    # ends, goes round a ring of two: 2 messages of 50 MB, each 1 ms and 5 ms.
    assert step.parts() == pytest.approx(
        {
            "data_wait": 0, "to_device": 0, "forward": 0.2, "backward": 0.4, "communication_exposed": 0.012,
            "pipeline_wait": 0, "optimizer": 0, "stragglers": 0, "other": 0,
        }, abs=1e-12,
    )  # fmt: skip
    assert step.seconds == pytest.approx(0.612)
    # Half the bytes on the wire; a fixed overhead; one core that decodes 1,000 of the 16 x 8 frames a second.
    half = job_at(config({"name": "end_to_end", "wire": "bf16"}), 2, 1, FACTS, 32, one_layer)
    assert step_parts(half, values).communication_exposed == pytest.approx(0.007)
    assert step_parts(made, {**values, "step_overhead": 0.05}).seconds == pytest.approx(0.662)
    slow = {**values, "decode_frames_per_core": 20.0, "cores_per_node": 4.0}
    assert step_parts(made, slow).data_wait == pytest.approx(16 * 8 / 80 - 0.612)


def test_exchanges_slow_down_the_backward_beside_which_they_run() -> None:
    quick, slow = (step_parts(job(2), {**SYSTEM, "overlap_slowdown": factor}) for factor in (1.0, 2.0))
    hidden = allreduce_seconds(4 * 10_000_000, Grid(2, 4), SYSTEM)  # the last layer's gradients, at least, cross meanwhile
    assert slow.backward > quick.backward + 0.4 * hidden
    assert slow.forward == quick.forward


def test_zero_reduces_behind_backward_and_gathers_the_weights() -> None:
    values, grid = {**SYSTEM, **FREE}, Grid(2, 1)
    for stage, reductions in ((1, 1), (2, 2)):
        made = job_at(config({"name": "end_to_end", "zero": stage, "wire": "bf16"}), 2, 1, FACTS, 32, one_layer)
        expected = reductions * allreduce_seconds(50e6, grid, values) + allreduce_seconds(100e6, grid, values) / 2
        assert step_parts(made, values).communication_exposed == pytest.approx(expected)


@pytest.mark.parametrize("nodes", [1, 3, 16, 250])
@pytest.mark.parametrize("method", [{"name": "end_to_end"}, {"name": "end_to_end", "zero": 2}, PIPELINE])
def test_parts_are_never_negative_and_add_up_to_the_step(nodes: int, method: dict[str, Any]) -> None:
    made = job(nodes, made=config(method))
    step = step_parts(made, SYSTEM)
    assert all(seconds >= 0 for seconds in step.parts().values())
    assert step.seconds == pytest.approx(sum(step.parts().values()))
    run = run_parts(made, SYSTEM, step)
    assert all(seconds >= 0 for seconds in run.parts().values())
    assert run.training == pytest.approx(made.total_steps * step.seconds)


@pytest.mark.parametrize("nodes", [1, 8])
def test_a_pipeline_s_parts_are_the_simulated_step_s(nodes: int) -> None:
    made = job(nodes, made=config(PIPELINE, micro_batch=2))
    values = {**SYSTEM, "rank_sigma": 0.0, "tail_probability": 0.0}
    run, step = pipeline_run(made, values), step_parts(made, values)
    assert step.seconds == pytest.approx(run.step_seconds)
    busy = sum(stage.busy for stage in run.stages) / 2
    assert step.forward + step.backward + step.to_device == pytest.approx(busy, rel=0.02)
    assert step.pipeline_wait > 0 and step.communication_exposed > 0


def test_equal_stages_idle_as_the_closed_form_says() -> None:
    even = tuple(replace(layer, parameters=1000, parameter_sizes=(1000,)) for layer in layers(config(), 2))
    made = job_at(config(PIPELINE, micro_batch=2), 1, 2, FACTS, 16, lambda config, micro: even)
    step = step_parts(made, {**SYSTEM, **FREE, "intra_latency": 0.0})
    idle = step.pipeline_wait / step.seconds
    assert idle == pytest.approx(1 / 9, rel=1e-6)  # (S - 1) / (M + S - 1) with 2 stages and 8 micro-batches


def test_sixteen_bits_are_faster_and_more_clips_take_longer() -> None:
    slow = step_parts(job(4), SYSTEM)
    assert step_parts(job(4, made=config(precision="bf16")), SYSTEM).seconds < slow.seconds
    assert step_parts(job(4, clips_a_rank=16), SYSTEM).seconds > 1.5 * slow.seconds


def jobs() -> st.SearchStrategy[Job]:
    methods = st.sampled_from([{"name": "end_to_end"}, {"name": "end_to_end", "wire": "bf16", "zero": 1}, PIPELINE])
    made = st.builds(lambda method, micro: config(method, micro_batch=micro), methods, st.sampled_from([2, 8]))
    return st.builds(lambda nodes, one: job(nodes, made=one), st.sampled_from([1, 2, 7, 64, 500]), made)


BETTER = [*MORE_IS_FASTER, "intra_bandwidth", "inter_bandwidth", "collective_efficiency"]
WORSE = [*MORE_IS_SLOWER, "intra_latency", "inter_latency", "overlap_slowdown", "rank_sigma", "tail_probability",
         "tail_seconds", "epoch_seconds", "evaluation_forward_ratio"]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(jobs(), st.sampled_from(BETTER), st.floats(1.0, 4.0))
def test_a_better_machine_never_trains_slower(made: Job, key: str, factor: float) -> None:
    limit = (
        1.0
        if key in ("collective_efficiency", "compute_efficiency_fp32", "compute_efficiency_16bit", "memory_efficiency")
        else 1e99
    )
    better = {**SYSTEM, key: min(limit, SYSTEM[key] * factor)}
    before, after = step_parts(made, SYSTEM), step_parts(made, better)
    assert after.seconds <= before.seconds * (1 + 1e-9)
    assert run_parts(made, better, after).seconds <= run_parts(made, SYSTEM, before).seconds * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(jobs(), st.sampled_from(WORSE), st.floats(1.0, 4.0))
def test_a_worse_machine_never_trains_faster(made: Job, key: str, factor: float) -> None:
    worse = {**SYSTEM, key: SYSTEM[key] * factor}
    before, after = step_parts(made, SYSTEM), step_parts(made, worse)
    assert after.seconds >= before.seconds * (1 - 1e-9)
    assert run_parts(made, worse, after).seconds >= run_parts(made, SYSTEM, before).seconds * (1 - 1e-9)
