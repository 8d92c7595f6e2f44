"""The parts of a run, against counts by hand."""

from __future__ import annotations

import math

import pytest

from hpcvideo.config import RunConfig
from hpcvideo.scaling.model.run import checkpoint_bytes, evaluation_seconds, run_parts
from hpcvideo.scaling.model.step import step_parts
from hpcvideo.training.dry_run import _FORMAT_BYTES
from hpcvideo.training.stages import optimizer_copies
from tests.scaling.model.example_job import FACTS, SIZES, SYSTEM, config, job


def with_section(section: str, **values: object) -> RunConfig:
    whole = config().resolved()
    whole[section] = {**whole[section], **values}
    return RunConfig.model_validate(whole)


def test_evaluation_is_the_batches_of_the_rank_that_has_most() -> None:
    made, free = job(16), {**SYSTEM, "decode_frames_per_core": 1e30, "pfs_node_read": 1e30, "pfs_read": 1e30}
    step = step_parts(made, free)
    batches = math.ceil(20_000 / (64 * 8))
    assert evaluation_seconds(made, free, step) == pytest.approx(batches * step.forward)  # batches of 8, as a step's
    run = run_parts(made, free, step)
    assert run.evaluation == pytest.approx(5 * batches * step.forward)
    assert run.epochs == pytest.approx(10 * 0.2, rel=1e-3)


def test_evaluation_cannot_outrun_the_loader() -> None:
    slow = {**SYSTEM, "decode_frames_per_core": 10.0}
    made = job(4)
    step = step_parts(made, slow)
    assert evaluation_seconds(made, slow, step) == pytest.approx(20_000 / 4 * 8 / (10 * 24))  # 4 ranks of 6 workers a node


def test_a_checkpoint_is_as_large_as_the_dry_run_says() -> None:
    made = job(made=config(optimizer={"name": "lamb"}, ema_decay=0.99))
    told = 4 * sum(SIZES) * (1 + optimizer_copies(made.config.recipe))
    assert checkpoint_bytes(made) == pytest.approx(told, rel=1e-3)
    assert abs(checkpoint_bytes(made) - told) <= 4 * 4000 + _FORMAT_BYTES


def test_failures_cost_more_where_nodes_fail_more_often_and_nothing_where_they_do_not() -> None:
    made = job(250)
    step = step_parts(made, SYSTEM)
    costs = [run_parts(made, {**SYSTEM, "node_mtbf_hours": hours}, step) for hours in (100.0, 1000.0, 10_000.0, 1e9)]
    assert [run.failures for run in costs] == sorted((run.failures for run in costs), reverse=True)
    assert costs[0].failures > 0.02 * costs[0].seconds and costs[-1].failures < 1e-3
    assert [run.goodput for run in costs] == sorted(run.goodput for run in costs)
    assert costs[-1].goodput == pytest.approx(costs[-1].training / costs[-1].seconds)


def test_staging_before_training_costs_and_beside_it_does_not() -> None:
    before, beside = (with_section("data", stage={"to": "/local", "when": when}) for when in ("before", "beside"))
    plain, part = (
        job(),
        with_section("data", stage={"to": "/local", "mode": "partition"}, order="node_local", virtual_nodes=32),
    )

    def staging(made: RunConfig, nodes: int = 1) -> float:
        one = job(nodes, made=made)
        return run_parts(one, SYSTEM, step_parts(one, SYSTEM)).staging

    both = FACTS.train_bytes + FACTS.validation_bytes
    assert run_parts(plain, SYSTEM, step_parts(plain, SYSTEM)).staging == staging(beside) == 0
    assert staging(before) == pytest.approx(both / 2.1e9)  # the disk's writing is the slowest part
    assert staging(part, 32) == pytest.approx(FACTS.train_bytes / 32 / 2.1e9)


def test_start_up_grows_with_ranks() -> None:
    first, second = (run_parts(job(nodes), SYSTEM, step_parts(job(nodes), SYSTEM)).startup for nodes in (2, 4))
    assert second == pytest.approx(first + SYSTEM["group_seconds"])


@pytest.mark.parametrize(("every", "stalls"), [({"every_steps": 100}, 750), ({"every_epochs": 5}, 2), ({}, 1)])
def test_checkpoints_stall_as_often_as_the_config_says(every: dict[str, float], stalls: int) -> None:
    values = config().resolved()
    values["checkpoint"] = every
    made = job(made=RunConfig.model_validate(values))
    run = run_parts(made, SYSTEM, step_parts(made, SYSTEM))
    size = checkpoint_bytes(made)
    stall, write = size / 4 / 12e9, size / 10e9
    assert made.total_steps == 75_000
    assert run.checkpoint == pytest.approx(stalls * stall + write)
