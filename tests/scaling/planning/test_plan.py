"""A plan's numbers: definitions that the report has too, parts that add up, and clear refusals."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.config import RunConfig
from hpcvideo.errors import InputError
from hpcvideo.scaling.measure.efficiency import SteadyWindow, measure_run, study
from hpcvideo.scaling.measure.run_log import read_run_log
from hpcvideo.scaling.model.estimate import Estimate
from hpcvideo.scaling.model.set_facts import SetFacts
from hpcvideo.scaling.model.system import System, load_system
from hpcvideo.scaling.planning.goal import Goal
from hpcvideo.scaling.planning.plan import Plan, make_plan
from hpcvideo.scaling.planning.scales import BatchRule, batch_rule
from hpcvideo.scaling.planning.text import scale_table
from tests.scaling.model.example_job import config
from tests.scaling.synthetic import write_run

FACTS = SetFacts(240_000, 20_000, 16_500.0, 300, "made up")
DRAWS = 20


def small(**changes: Any) -> RunConfig:
    """A real network, small enough to be counted at once."""
    values = config().resolved()
    values["model"] = {"name": "tsm_resnet18", "frames": 4}
    values["data"] |= {"size": 64, "short_side": 64}
    for section, own in changes.items():
        values[section] = {**values[section], **own}
    return RunConfig.model_validate(values)


def planned(
    made: RunConfig | None = None, nodes: tuple[int, ...] = (1, 8, 64), system: str = "summit", **others: Any
) -> Plan:
    made = made or small()
    rule = others.pop("rule", batch_rule(made, False, 8, 6))
    machine = others.pop("machine", None) or load_system(system)
    return make_plan(made, machine, nodes, others.pop("ranks_per_node", 6), FACTS, rule, draws=DRAWS, **others)


@lru_cache
def plain() -> Plan:
    return planned(goal=Goal(seconds=600))


def test_parts_add_up_to_the_step_and_to_the_run() -> None:
    for scale in plain().scales:
        assert sum(scale.parts.values()) == pytest.approx(scale.prediction.step_seconds.median)
        assert sum(scale.run.values()) == pytest.approx(scale.prediction.run_seconds.median)
        assert (
            scale.prediction.step_seconds.low <= scale.prediction.step_seconds.median <= scale.prediction.step_seconds.high
        )


def test_what_is_lost_adds_up_to_the_time_beyond_ideal_scaling() -> None:
    base, *others = plain().scales
    assert base.lost == {} and base.holds_back is None
    for scale in others:
        share = base.job.ranks / scale.job.ranks
        beyond = scale.prediction.run_seconds.median - share * base.prediction.run_seconds.median
        assert sum(scale.lost.values()) == pytest.approx(beyond)
        assert scale.holds_back == max(scale.lost, key=lambda name: scale.lost[name])


def test_efficiency_is_defined_as_in_the_report(tmp_path: Path) -> None:
    machine = load_system("summit")
    certain = System("certain", "", {key: Estimate.known(one.value, "a test") for key, one in machine.estimates.items()})
    plan = planned(machine=certain)
    paths = []
    for scale in plan.scales:
        seconds, job = scale.prediction.step_seconds.median, scale.job
        path = tmp_path / str(job.ranks)
        paths.append(write_run(path, job.ranks, [seconds] * 20, nodes=job.nodes, global_batch=job.global_batch))
    window = SteadyWindow()
    reported = study([measure_run(read_run_log(path), window) for path in paths], window)
    assert [scale.efficiency.median for scale in plan.scales] == pytest.approx(
        [scale.efficiency for scale in reported.scales]
    )
    assert plan.scales[-1].efficiency.low == plan.scales[-1].efficiency.high < 1


def test_node_hours_and_gpu_hours_follow_from_the_time() -> None:
    for scale in plain().scales:
        hours = scale.prediction.run_seconds.median / 3600
        assert scale.node_hours.median == pytest.approx(hours * scale.job.nodes)
        assert scale.gpu_hours.median == pytest.approx(hours * scale.job.nodes * 6)


def test_the_same_question_has_the_same_answer() -> None:
    assert planned(goal=Goal(seconds=600)).scales[2].prediction.run_seconds == plain().scales[2].prediction.run_seconds


def test_weak_scaling_keeps_clips_a_rank_and_strong_scaling_the_batch() -> None:
    assert [scale.job.global_batch for scale in plain().scales] == [48, 384, 3072]
    strong = planned(small(recipe={"global_batch": 3072}), rule=batch_rule(small(), True, None, 6))
    assert [(scale.job.global_batch, scale.job.accumulation) for scale in strong.scales] == [
        (3072, 64),
        (3072, 8),
        (3072, 1),
    ]


@pytest.mark.parametrize(
    ("name", "recipe", "given", "clips"),
    [
        ("tsm_summit_256x6", {"global_batch": 12_288, "micro_batch": 8}, None, 8),
        ("tsm_summit_1x6_pipeline", {"global_batch": 48, "micro_batch": 4}, None, 8),
        ("i3d_3x1x1_32f", {"global_batch": 12_288, "micro_batch": 4}, None, 4),
        ("plain", {"global_batch": 48, "micro_batch": None}, None, 8),
        ("tsm_summit_256x6", {"global_batch": 12_288, "micro_batch": 8}, 16, 16),
    ],
)
def test_clips_a_rank_are_the_config_s(name: str, recipe: dict[str, Any], given: int | None, clips: int) -> None:
    rule = batch_rule(config(name=name, **recipe), False, given, 6)
    assert rule.clips_a_rank == clips and rule.global_batch(96) == 96 * clips


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        ({"nodes": (1, 5000)}, "--nodes 5000: a job on summit has 4608 nodes at most"),
        ({"ranks_per_node": 8}, "--ranks-per-node 8: a node of summit has 6 GPUs"),
        ({"rule": BatchRule(None, "strong")}, "1 x 6 ranks: recipe.global_batch = 32 is not divisible by 6 ranks"),
        (
            {"made": small(model={"name": "tsm_resnet50", "frames": 16}, data={"size": 224, "short_side": 256},
                           recipe={"micro_batch": 32, "global_batch": 192}), "rule": BatchRule(32, "weak")},
            "a GPU needs .* GB, one of summit has 16 GB; use a recipe.micro_batch below 32",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused(others: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        planned(**others)


def test_a_goal_moves_the_focus_to_its_scale() -> None:
    choice = plain().choice
    assert choice is not None
    assert plain().focus == (choice.fastest if choice.likely is None else choice.likely)
    assert planned().focus == 2


def test_moves_are_the_model_with_one_thing_changed() -> None:
    plan = planned()
    moves = {move.name: move for move in plan.moves}
    assert set(moves) == {
        "twice the network", "16-bit arithmetic", "16-bit gradients", "twice the batch", "half the frames", "staging",
        "twice the decoding", "evaluate at the end", "even ranks",
    }  # fmt: skip
    ratios = [move.run_ratio.median for move in plan.moves]
    assert ratios == sorted(ratios)
    for name in (
        "twice the network",
        "16-bit arithmetic",
        "16-bit gradients",
        "half the frames",
        "even ranks",
        "twice the decoding",
    ):
        assert moves[name].run_ratio.high <= 1 + 1e-9, name
    assert 0.5 < moves["half the frames"].step_ratio.median < 0.97
    changed = planned(small(model={"name": "tsm_resnet18", "frames": 2}))
    assert moves["half the frames"].run_seconds == changed.scales[2].prediction.run_seconds
    faster = load_system("summit")
    doubled = faster.with_estimates({"inter_bandwidth": Estimate.known(2 * faster.values["inter_bandwidth"], "a test")})
    assert moves["twice the network"].run_seconds == planned(machine=doubled).scales[2].prediction.run_seconds


def test_a_pipeline_in_16_bits_is_planned_too() -> None:
    made = small(method={"name": "pipeline", "stages": 2, "wire": "bf16"}, recipe={"micro_batch": 4, "precision": "fp16"})
    plan = planned(made, nodes=(1, 4))
    assert [scale.job.accumulation for scale in plan.scales] == [4, 4]
    assert plan.scales[0].parts["pipeline_wait"] > 0
    assert "16-bit arithmetic" not in {move.name for move in plan.moves}


def test_bf16_is_refused_where_the_gpus_do_not_have_it_and_the_move_takes_fp16() -> None:
    with pytest.raises(InputError, match=r"recipe.precision = bf16: .* summit's GPUs do not take bf16; use .*=fp16"):
        planned(small(recipe={"precision": "bf16"}))
    notes = {
        system: next(
            move.note
            for move in planned(nodes=(1,), system=system, ranks_per_node=4).moves
            if move.name == "16-bit arithmetic"
        )
        for system in ("summit", "perlmutter")
    }
    assert notes == {
        "summit": "recipe.precision=fp16, since these GPUs do not have bf16", "perlmutter": "recipe.precision=bf16",
    }  # fmt: skip


def test_memory_that_is_nearly_full_is_warned_of() -> None:
    machine, needed = load_system("summit"), plain().scales[0].memory.total

    def told(memory: float) -> list[str]:
        there = machine.with_estimates({"gpu_memory": Estimate.known(memory, "a test")})
        return [warning for warning in planned(machine=there).warnings if "may run out of memory" in warning]

    assert len(told(needed / 0.9)) == 1 and "more than 85%" in told(needed / 0.9)[0]
    assert told(needed / 0.8) == []


def test_few_updates_are_warned_of() -> None:
    warnings = planned(nodes=(1, 4608)).warnings
    assert any("221,184 clips a batch leave 11 updates" in warning for warning in warnings)
    assert not planned(nodes=(1, 2)).warnings


def test_a_run_that_never_comes_to_its_checkpoint_is_told_and_warned_of() -> None:
    rare = small(checkpoint={"every_epochs": None})
    machine = load_system("summit").with_estimates({"node_mtbf_hours": Estimate.known(0.01, "a test")})
    plan = planned(rare, nodes=(1, 64), machine=machine)
    assert any("failures cost more than a fifth of the work" in warning for warning in plan.warnings)
    assert plan.scales[0].prediction.run_seconds.high < float("inf") and plan.scales[0].goodput.median < 0.01
    assert "h" in scale_table(plan).rows[0][6][0]
