"""What a config asks for at a scale, against what training itself plans and against numbers by hand."""

from __future__ import annotations

import pytest

from hpcvideo.config import load_config
from hpcvideo.errors import InputError
from hpcvideo.methods.batch_split import split_over
from hpcvideo.scaling.model.job import job_at
from hpcvideo.scaling.model.set_facts import KNOWN_SETS
from hpcvideo.training.recipe import plan_run
from hpcvideo.training.stages import plan_stages
from tests.scaling.model.example_job import FACTS, config, job, layers

KINETICS = KNOWN_SETS["kinetics400"]


@pytest.mark.parametrize(("nodes", "batch"), [(1, 48), (256, 12_288)])
def test_steps_and_split_are_those_that_training_plans(nodes: int, batch: int) -> None:
    shipped = load_config(f"kinetics400/tsm_r50_8f_summit_{nodes}x6")
    planned = plan_run(shipped.recipe, KINETICS.train_videos, 6 * nodes)
    made = job_at(shipped, nodes, 6, KINETICS, count=layers)
    assert (made.global_batch, made.total_steps, made.split) == (batch, planned.total_steps, planned.split)
    assert made.steps_per_epoch == planned.steps_per_epoch


def test_a_pipeline_is_cut_and_placed_as_training_does() -> None:
    shipped = load_config("kinetics400/tsm_r50_8f_summit_16x6_pipeline")
    made = job_at(shipped, 16, 6, KINETICS)
    planned = plan_stages(shipped, split_over(shipped, 96), 6)
    assert [[made.layers[place].name for place in cut] for cut in made.stage_layers] == [
        list(stage.layers) for stage in planned.stages
    ]
    assert made.stages_adjacent == planned.grid.stages_adjacent
    assert (made.stages, made.replicas, made.accumulation) == (2, 48, 4)
    assert made.parameters == 24_327_632


def test_a_larger_batch_sees_the_same_clips() -> None:
    by_epochs, by_steps = config(), config(epochs=None, steps=1000)
    assert job(16).total_steps == -(-10 * 240_000 // 512)
    assert job(1, made=by_steps).total_steps == 1000
    assert job(4, made=by_steps).total_steps == 250
    assert job(4, made=by_epochs).epochs == pytest.approx(10, rel=1e-3)


def test_evaluations_count_the_one_at_the_end_once() -> None:
    assert job().evaluations == 5  # after epochs 2, 4, 6, 8 and 10
    whole = config()
    at_the_end = whole.model_copy(update={"evaluation": whole.evaluation.model_copy(update={"every_epochs": None})})
    odd = whole.model_copy(update={"evaluation": whole.evaluation.model_copy(update={"every_epochs": 3})})
    assert job(made=at_the_end).evaluations == 1
    assert job(made=odd).evaluations == 4  # after 3, 6, 9 and at the end
    assert job().evaluation_clips == 20_000


@pytest.mark.parametrize(
    ("made", "nodes", "ranks", "sentence"),
    [
        (config(global_batch=100), 2, 4, "recipe.global_batch = 100 is not divisible by 8 ranks x micro_batch 8"),
        (config({"name": "pipeline", "stages": 3}), 1, 4, "4 ranks do not divide into pipelines of method.stages = 3"),
        (config({"name": "pipeline", "stages": 9}, global_batch=72), 1, 9, "9 stages are more than the 4"),
    ],
)
def test_shapes_that_do_not_divide_are_refused(made: object, nodes: int, ranks: int, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        job_at(made, nodes, ranks, FACTS, count=layers)  # type: ignore[arg-type]


def test_methods_that_work_on_units_are_not_planned() -> None:
    with pytest.raises(InputError, match="method sideways computes in units"):
        job(made=config({"name": "sideways"}))


def test_options_of_the_method_are_respected() -> None:
    plain, lean = job(2), job(2, made=config({"name": "end_to_end", "wire": "bf16", "bucket_megabytes": 5, "zero": 1}))
    assert (plain.wire_bytes, plain.bucket_bytes, plain.zero) == (4, 25_000_000, 0)
    assert (lean.wire_bytes, lean.bucket_bytes, lean.zero) == (2, 5_000_000, 1)


def test_where_clips_are_read_follows_the_staging() -> None:
    def staged(to: str) -> str:
        values = config().resolved()
        values["data"]["stage"] = {"to": to}
        return job(made=type(config()).model_validate(values)).reads_from

    assert job().reads_from == "shared"
    assert (staged("/mnt/bb/me"), staged("/dev/shm/me")) == ("local", "memory")
