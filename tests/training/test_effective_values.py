"""What a recipe comes to: its values, its law in words, and when it is warned of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.config.load import parse_config
from hpcvideo.config.schema import RunConfig
from hpcvideo.runs import read_events
from hpcvideo.training.effective_values import effective_values
from hpcvideo.training.recipe import learning_rate, plan_run
from tests.conftest import run_hpcvideo

LIVE = {"name": "sampled_gradients", "chunk_statistics": True}
KINETICS, IMAGENET = 240_618, 1_281_167


def config(recipe: dict[str, Any], **changes: Any) -> RunConfig:
    values = {
        "name": "tiny",
        "task": {"name": "classification", "num_classes": 3},
        "model": {"name": "tsm_resnet18", "frames": 8},
        "data": {"train": "/nowhere"},
        "recipe": {"epochs": 100, **recipe},
    }
    return parse_config({**values, **changes}, "test")


def values_of(samples: int, data_parallel: int, recipe: dict[str, Any], **changes: Any) -> dict[str, Any]:
    chosen = config(recipe, **changes)
    return effective_values(chosen, plan_run(chosen.recipe, samples, data_parallel))


def test_the_published_run_on_1536_gpus_has_these_values_and_no_warning() -> None:
    """12,288 clips, 8 a GPU: arXiv 1910.00932; 64 images are one statistic, MLPerf's smallest span."""
    steps = {"decay": "step", "decay_epochs": [40, 80], "warmup_epochs": 5}
    values = values_of(KINETICS, 1536, {"global_batch": 12288, "micro_batch": 8, **steps})
    assert json.loads(json.dumps(values)) == values
    assert (values["total_steps"], values["warmup_steps"], values["accumulation"]) == (1959, 98, 1)
    assert values["learning_rate_law"] == (
        "0.01 x 12288 / 64 = 1.92, after a linear warm-up of 98 updates, x 0.1 at epoch 40, 80"
    )
    assert values["optimizer"] == {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4}
    assert values["batch_norm_span"] == {"clips": 8, "images": 64}
    assert values["warnings"] == [] and values["ema_decay"] is None


@pytest.mark.parametrize(
    ("batch_norm", "span"),
    [
        ({}, {"clips": 8, "images": 64}),
        ({"sync": "group", "group_ranks": 6}, {"clips": 48, "images": 384}),
        ({"sync": "all"}, {"clips": 96, "images": 768}),
        ({"frozen": "all"}, {"clips": 0, "images": 0}),
    ],
)
def test_the_span_counts_the_clips_and_images_of_all_ranks_that_share_a_statistic(
    batch_norm: dict[str, Any], span: dict[str, int]
) -> None:
    recipe = {"global_batch": 192, "micro_batch": 8, "batch_norm": batch_norm}
    assert values_of(KINETICS, 12, recipe)["batch_norm_span"] == span


@pytest.mark.parametrize(
    ("method", "options", "span"),
    [
        ({"name": "sampled_gradients"}, {}, {"clips": 0, "images": 0}),  # norm_eval is the default
        ({"name": "end_to_end"}, {}, {"clips": 0, "images": 0}),
        ({"name": "end_to_end"}, {"norm_eval": False}, {"clips": 8, "images": 8 * 24}),
        (LIVE, {"norm_eval": False}, {"clips": 4, "images": 12}),
        (LIVE | {"ratio": 0}, {"norm_eval": False}, {"clips": 0, "images": 0}),
    ],
)
def test_encoders_of_snippets_take_statistics_over_a_chunk_or_none(
    method: dict[str, Any], options: dict[str, Any], span: dict[str, int]
) -> None:
    changes = {
        "method": method,
        "model": {"name": "snippet_classifier", "frames": 24, "options": {"snippets": 8, **options}},
        "data": {"train": "/nowhere", "sampling": {"kind": "snippets", "snippets": 8}},
    }
    assert values_of(KINETICS, 12, {"global_batch": 192, "micro_batch": 8}, **changes)["batch_norm_span"] == span


def test_units_take_their_statistics_over_one_frame_of_each_clip() -> None:
    values = values_of(KINETICS, 12, {"global_batch": 192, "micro_batch": 8}, method={"name": "skip_sideways"})
    assert values["batch_norm_span"] == {"clips": 8, "images": 8}


@pytest.mark.parametrize(
    ("recipe", "end"),
    [
        ({"decay": "cosine"}, "falling to 0 by a cosine"),
        ({"decay": "polynomial", "decay_power": 1.5}, "falling to 0 by (1 - t)^1.5"),
        ({"decay": "constant"}, "constant"),
    ],
)
def test_the_law_in_words_names_what_the_rates_do(recipe: dict[str, Any], end: str) -> None:
    chosen = config({"global_batch": 128, **recipe})
    plan = plan_run(chosen.recipe, 1280, 1)
    assert effective_values(chosen, plan)["learning_rate_law"] == f"0.01 x 128 / 64 = 0.02, {end}"
    halfway = {"cosine": 0.5, "polynomial": 0.5**1.5, "constant": 1.0}[recipe["decay"]]
    assert learning_rate(chosen.recipe, plan, plan.total_steps // 2) == pytest.approx(0.02 * halfway)


def test_a_batch_that_leaves_too_few_updates_is_warned_of_with_figures_that_mend_it() -> None:
    recipe = {"global_batch": 24576, "micro_batch": 8}
    (warning,) = values_of(KINETICS, 1536, recipe)["warnings"]
    assert "24576 clips leaves 980 updates" in warning
    assert "fewer than 1600 (65,536 images a batch take 83 to 86 epochs, about 1,620 updates" in warning
    assert "recipe.epochs=164 or more" in warning and "recipe.global_batch of at most 15038 for" in warning
    for mended in ({**recipe, "epochs": 164}, {"global_batch": 15038}):
        assert values_of(KINETICS, 1, mended)["warnings"] == []
    assert values_of(KINETICS, 1, {**recipe, "epochs": 163})["warnings"]
    assert values_of(KINETICS, 1, {"global_batch": 15050})["warnings"]


def test_the_figures_of_the_warning_are_those_of_the_reference_points() -> None:
    """Batch and fewest epochs of MLPerf Training 4.0's ResNet-50 points (mlcommons/logging, rcps_resnet.json)."""
    fewest = {1632: 33, 3264: 34, 4096: 39, 8192: 41, 13056: 44, 32768: 55, 49152: 67, 65536: 83, 67840: 85}
    updates = {batch: math.ceil(epochs * IMAGENET / batch) for batch, epochs in fewest.items()}
    assert min(updates.values()) == updates[67840] == 1606 and updates[65536] == 1623
    for batch, epochs in fewest.items():
        assert values_of(IMAGENET, 1, {"global_batch": batch, "epochs": epochs})["warnings"] == []


@pytest.mark.parametrize(
    ("samples", "recipe"),
    [
        (1024, {"global_batch": 32, "epochs": 16}),  # the demo: a small batch, a short run
        (9537, {"global_batch": 64, "epochs": 5}),
        (240_618, {"global_batch": 1024, "epochs": 2}),
    ],
)
def test_a_short_run_with_a_small_batch_is_not_warned_of(samples: int, recipe: dict[str, Any]) -> None:
    assert values_of(samples, 1, recipe)["warnings"] == []


def test_a_length_in_steps_is_warned_of_in_steps() -> None:
    (warning,) = values_of(1024, 1, {"global_batch": 2048, "epochs": None, "steps": 20})["warnings"]
    assert "use recipe.steps=1600 or more, or a recipe.global_batch of at most 25" in warning


def test_decays_that_the_run_never_sees_or_that_its_warm_up_hides_are_warned_of() -> None:
    recipe = {"global_batch": 64, "epochs": 10, "warmup_epochs": 2, "decay": "step"}
    (warning,) = values_of(6400, 1, {**recipe, "decay_epochs": [1, 5, 10, 40]})["warnings"]
    assert "10, 40 after the end of the run (epoch 10)" in warning and "1 inside of the warm-up (2 epochs)" in warning
    assert values_of(6400, 1, {**recipe, "decay_epochs": [2, 5, 9]})["warnings"] == []


def test_an_average_too_long_for_the_run_is_warned_of_with_one_that_fits() -> None:
    recipe = {"global_batch": 64, "epochs": None, "steps": 500}
    (warning,) = values_of(64_000, 1, {**recipe, "ema_decay": 0.999})["warnings"]
    assert "leaves 61% of the first weights in the average after 500 updates" in warning and "use 0.9908 or less" in warning
    assert 0.9908**500 < 0.01 < 0.9909**500
    assert values_of(64_000, 1, {**recipe, "ema_decay": 0.9908})["warnings"] == []


def test_a_pipeline_with_few_micro_batches_is_among_the_warnings() -> None:
    method = {"name": "pipeline", "stages": 4}
    (warning,) = values_of(64_000, 1, {"global_batch": 8, "micro_batch": 4}, method=method)["warnings"]
    assert "2 micro-batches a step are fewer than the 4 stages" in warning


def test_a_run_prints_and_stores_its_values_and_a_dry_run_the_same(
    config_values: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    config_values["recipe"] |= {
        "global_batch": 1030, "micro_batch": 10, "steps": 1, "warmup_epochs": 0.0, "optimizer": {"name": "lamb"},
    }  # fmt: skip
    config_values["evaluation"] = {"batch": 4}
    file = write_config(config_values)
    planned = json.loads(run_hpcvideo("train", file, "--dry-run", "--json").stdout)
    shown = run_hpcvideo("train", file, "--dry-run").stdout
    run = run_hpcvideo("train", file, "--run", tmp_path / "run")
    started = next(read_events(tmp_path / "run" / "events.jsonl"))
    assert started["event"] == "start"
    keys = ("global_batch", "total_steps", "learning_rate_law", "optimizer", "ema_decay", "batch_norm_span", "warnings")
    for key in keys:
        assert started[key] == planned[key]
    assert started["batch_norm_span"] == {"clips": 10, "images": 40} and len(started["warnings"]) == 1
    for told in (shown, run.stderr):
        told = " ".join(told.split())
        assert "one BatchNorm statistic sees 10 clips, 40 images" in told and "learning rate 0.1 x 1030 / 64" in told
        assert "optimizer lamb, betas [0.9, 0.999], eps 1e-06, weight_decay 0.0001" in told
        assert "warning: a global batch of 1030 clips leaves 1 update;" in told
