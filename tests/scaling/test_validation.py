from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache

import pytest

from hpcvideo.scaling.anchors import ANCHORS, Anchor
from hpcvideo.scaling.model.estimate import Estimate
from hpcvideo.scaling.model.prediction import draw_values
from hpcvideo.scaling.model.run import run_parts
from hpcvideo.scaling.model.step import layer_times, step_parts
from hpcvideo.scaling.model.system import load_system
from hpcvideo.scaling.validation import Validation, job_of, validate
from hpcvideo.scaling.validation_text import clock, validation_text

DRAWS = 16
BY_NAME = {anchor.name: anchor for anchor in ANCHORS}
ONE, MANY = BY_NAME["tsm_summit_1_node"], BY_NAME["tsm_summit_256_nodes"]


@lru_cache(maxsize=1)
def everything() -> Validation:
    return validate(draws=DRAWS)


def predicted(*anchors: Anchor, draws: int = DRAWS) -> dict[str, dict[str, float]]:
    return {one["name"]: one for one in validate(anchors, draws).as_json()["anchors"]}


def test_every_anchor_has_a_source_and_says_what_the_model_was_given() -> None:
    assert len(BY_NAME) == len(ANCHORS)
    for anchor in ANCHORS:
        assert len(anchor.source) > 10 and len(anchor.given) > 10


def test_an_anchor_that_others_are_fitted_on_says_that_it_was_used_for_fitting() -> None:
    for anchor in ANCHORS:
        if anchor.fitted_on is not None:
            assert BY_NAME[anchor.fitted_on].fitted is not None and anchor.fitted is None


def test_a_number_of_a_system_that_was_fitted_to_an_anchor_names_it_and_others_only_scale() -> None:
    scaling = {anchor.fitted_on for anchor in ANCHORS}
    for anchor in ANCHORS:
        named = [one.source for one in load_system(anchor.setting.system).estimates.values() if anchor.name in one.source]
        if anchor.fitted in ("value", "bound"):
            assert named, anchor.name
        elif anchor.fitted == "scale":
            assert anchor.name in scaling


def test_the_answer_is_json_with_published_range_and_whether_it_was_fitted() -> None:
    answer = json.loads(json.dumps(everything().as_json()))
    assert [one["name"] for one in answer["anchors"]] == [anchor.name for anchor in ANCHORS]
    for one in answer["anchors"]:
        assert {"published", "low", "high", "fitted", "inside", "given", "predicted", "error", "source"} <= set(one)
        assert 0 < one["low"] <= one["predicted"] <= one["high"]
        assert one["inside"] is (one["low"] <= one["published"] <= one["high"])
        assert one["error"] == pytest.approx(one["predicted"] / one["published"] - 1)
    assert len(answer["explanations"]) == 4 and answer["not_predicted"]


def test_the_256_node_run_is_predicted_within_a_factor_of_two_that_holds_14_minutes_13() -> None:
    result = predicted(ONE, MANY, draws=128)[MANY.name]
    assert result["high"] <= 2 * result["low"]
    assert result["low"] <= 14 * 60 + 13 <= result["high"]
    assert not result["fitted"]


def test_the_256_node_run_is_also_told_without_the_loaders_cost_and_counted_once() -> None:
    plain = BY_NAME["tsm_summit_256_loader_kept"]
    assert plain.variant_of == MANY.name and plain.published == MANY.published
    own = load_system("summit").estimates["epoch_seconds"]
    assert replace(plain.setting, numbers=MANY.setting.numbers) == MANY.setting and not plain.setting.numbers
    cost = MANY.setting.numbers["epoch_seconds"]
    results = predicted(ONE, MANY, plain)
    gap = results[MANY.name]["predicted"] - results[plain.name]["predicted"]
    # 100 epochs; the median of what an epoch costs more lies between the likely values' and the high ends' difference.
    assert 100 * (cost.value - own.value) < gap < 100 * (cost.high - own.low)
    counted = [one.anchor.name for one in validate([ONE, MANY, plain], DRAWS).unfitted]
    assert counted == [MANY.name]
    text = validation_text(validate([ONE, MANY, plain], DRAWS))
    assert "1 of 1 published numbers" in text and f"{plain.name} tells {MANY.name} again" in text


def test_an_epochs_cost_of_the_256_node_run_is_measured_by_others_and_told() -> None:
    cost = MANY.setting.numbers["epoch_seconds"]
    for issue in ("temporal-shift-module issue 127", "metatrain pull request 1271", "mmaction issue 199"):
        assert issue in cost.source
    assert f"{cost.value:g} s an epoch ({cost.low:g} to {cost.high:g})" in MANY.given


def test_the_published_256_node_number_does_not_change_its_prediction() -> None:
    before = predicted(ONE, MANY)[MANY.name]
    after = predicted(ONE, replace(MANY, published=2 * MANY.published))[MANY.name]
    assert [after[key] for key in ("predicted", "low", "high")] == [before[key] for key in ("predicted", "low", "high")]
    assert not after["inside"]


def test_the_published_one_node_number_does() -> None:
    before = predicted(ONE, MANY)[MANY.name]
    after = predicted(replace(ONE, published=2 * ONE.published), MANY)[MANY.name]
    assert after["predicted"] > 1.5 * before["predicted"]


def test_the_systems_own_efficiency_has_no_part_in_what_is_fitted_on_a_run() -> None:
    """One factor on all computing takes its place: a GPU of twice the speed on paper changes nothing."""
    half = {"gpu_peak_fp32": Estimate.known(7.8e12, "test"), "gpu_memory_bandwidth": Estimate.known(450e9, "test")}
    setting = replace(MANY.setting, numbers={**MANY.setting.numbers, **half})
    base = replace(ONE, setting=replace(ONE.setting, numbers={**ONE.setting.numbers, **half}))
    before, after = predicted(ONE, MANY)[MANY.name], predicted(base, replace(MANY, setting=setting))[MANY.name]
    assert after["predicted"] == pytest.approx(before["predicted"], rel=0.02)


def test_an_anchor_fitted_on_itself_gives_its_own_number() -> None:
    twin = replace(ONE, name="twin", fitted_on=ONE.name, fitted=None)
    result = predicted(ONE, twin)["twin"]
    for key in ("low", "predicted", "high"):
        assert result[key] == pytest.approx(ONE.published, rel=1e-6)


def test_an_unfitted_anchor_is_the_models_own_answer_draw_by_draw() -> None:
    anchor = BY_NAME["tsm_v100_step"]
    job = job_of(anchor.setting)
    drawn = draw_values(load_system("summit").with_estimates(dict(anchor.setting.numbers)).estimates, DRAWS)
    steps = sorted(step_parts(job, values).seconds for values in drawn)
    result = predicted(anchor)[anchor.name]
    assert result["predicted"] == pytest.approx((steps[7] + steps[8]) / 2)


def test_half_of_the_draws_have_evaluations_in_the_clock_and_half_the_start() -> None:
    job = job_of(ONE.setting)
    drawn = draw_values(load_system("summit").with_estimates(dict(ONE.setting.numbers)).estimates, 4)
    seconds = []
    for values, evaluated, started in zip(drawn, (1, 0, 1, 0), (1, 1, 0, 0), strict=True):
        run = run_parts(job, values, step_parts(job, values, layer_times(job, values)))
        seconds.append(run.training + run.epochs + evaluated * run.evaluation + started * run.startup)
    result = predicted(ONE, draws=4)[ONE.name]
    assert result["predicted"] == pytest.approx(sum(sorted(seconds)[1:3]) / 2)


def test_an_anchor_fitted_on_one_that_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="tsm_summit_1_node"):
        validate([MANY])


def test_the_text_has_every_anchor_and_calls_a_miss_a_miss() -> None:
    wrong = replace(BY_NAME["tsm_v100_step"], published=5.0)
    text = validation_text(validate([wrong, ONE, MANY], DRAWS))
    line = next(line for line in text.splitlines() if line.startswith("tsm_v100_step"))
    assert " NO " in line and "5 s a step" in line
    assert "14:13" in text and "49:55:00" in text
    assert "on tsm_summit_1_node" in text and "arXiv 1910.00932" in text
    assert "After the fact" in text
    assert "0 of 2 published" in text or "1 of 2 published" in text
    assert "missed: tsm_v100_step" in " ".join(text.split())


def test_a_number_that_only_a_bound_was_fitted_to_is_not_called_fitted() -> None:
    bound, scale = BY_NAME["resnet50_v100_fp32"], BY_NAME["resnet50_v100_16bit"]
    text = validation_text(validate([ONE, bound, scale], DRAWS), 200)
    ends = {line.split()[0]: line for line in text.splitlines() if line.startswith(("resnet50", ONE.name))}
    assert ends[bound.name].endswith("a bound") and ends[scale.name].endswith("as scale") and ends[ONE.name].endswith("yes")


def test_a_clock_counts_hours_only_where_there_are_some() -> None:
    assert clock(853) == "14:13" and clock(179_700) == "49:55:00" and clock(59.6) == "1:00"
