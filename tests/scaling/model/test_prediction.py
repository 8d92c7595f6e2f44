"""Draws and ranges, against the laws that they are drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from hpcvideo.scaling.model.estimate import Estimate
from hpcvideo.scaling.model.prediction import Range, draw_values, predict, range_of, sensitivity
from hpcvideo.scaling.model.run import run_parts
from hpcvideo.scaling.model.step import step_parts
from tests.scaling.model.example_job import SYSTEM, job

ESTIMATES = {
    "wide": Estimate(10.0, 1.0, 100.0, "made up"),
    "skewed": Estimate(2.0, 1.0, 16.0, "made up"),
    "zero": Estimate(1.0, 0.0, 2.0, "made up"),
    "known": Estimate.known(5.0, "made up"),
}


def test_draws_are_triangular_in_the_logarithm_and_stay_within_their_bounds() -> None:
    draws = draw_values(ESTIMATES, 4000)
    for key, estimate in ESTIMATES.items():
        column = np.array([values[key] for values in draws])
        assert estimate.low <= column.min() and column.max() <= estimate.high
    wide = np.log10([values["wide"] for values in draws])
    assert np.mean(wide) == pytest.approx(1.0, abs=1e-3)
    assert np.std(wide) == pytest.approx(1 / np.sqrt(6), abs=1e-3)  # triangular on [0, 2] with its mode in the middle
    skewed = np.log2([values["skewed"] for values in draws])
    assert np.mean(skewed) == pytest.approx((0 + 1 + 4) / 3, abs=1e-3)
    assert np.mean([values["zero"] for values in draws]) == pytest.approx(1.0, abs=1e-3)
    assert {values["known"] for values in draws} == {5.0}


def test_draws_are_independent_repeatable_and_keep_when_another_number_changes() -> None:
    draws = draw_values(ESTIMATES, 1000)
    assert draws == draw_values(ESTIMATES, 1000)
    assert draws != draw_values(ESTIMATES, 1000, seed=1)
    table = np.array([[values["wide"], values["skewed"]] for values in draws])
    assert abs(np.corrcoef(np.log(table).T)[0, 1]) < 0.1
    changed = draw_values({**ESTIMATES, "skewed": Estimate.known(3.0, "made up")}, 1000)
    assert [values["wide"] for values in changed] == [values["wide"] for values in draws]


def test_a_range_is_the_median_and_5_to_95_percent() -> None:
    assert range_of([float(number) for number in range(101)]) == Range(50.0, 5.0, 95.0)


def test_predictions_are_the_model_on_each_draw() -> None:
    jobs = [job(1), job(8), job(8, clips_a_rank=16)]
    draws = [{**SYSTEM, "inter_bandwidth": speed} for speed in (1e9, 5e9, 25e9)]
    for prediction in predict(jobs, draws):
        assert [step.seconds for step in prediction.steps] == [
            step_parts(prediction.job, values).seconds for values in draws
        ]
        expected = [run_parts(prediction.job, v, step_parts(prediction.job, v)).seconds for v in draws]
        assert [run.seconds for run in prediction.runs] == expected
        assert prediction.run_seconds == range_of(expected)


def test_sensitivity_names_what_matters_most_first() -> None:
    estimates = {key: Estimate.known(value, "made up") for key, value in SYSTEM.items()}
    estimates["gpu_peak_fp32"] = Estimate(16e12, 8e12, 32e12, "made up")
    estimates["epoch_seconds"] = Estimate(0.2, 0.1, 0.4, "made up")
    estimates["gpu_peak_16bit"] = Estimate(120e12, 60e12, 240e12, "made up")  # a job in 32 bits does not ask for it
    effects = sensitivity(job(4), estimates, lambda step, run: run.seconds)
    assert [effect.key for effect in effects] == ["gpu_peak_fp32", "epoch_seconds"]
    assert effects[0].at_low > effects[0].at_high and effects[1].at_low < effects[1].at_high
    slow = {**SYSTEM, "gpu_peak_fp32": 8e12}
    assert effects[0].at_low == pytest.approx(run_parts(job(4), slow, step_parts(job(4), slow)).seconds)
