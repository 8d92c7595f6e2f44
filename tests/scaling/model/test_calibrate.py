"""Calibration against logs that the cost model made from known numbers: it finds them, or says which it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcvideo.errors import InputError
from hpcvideo.scaling.model.calibrate import PARTS, calibrate, job_of, not_reached
from hpcvideo.scaling.model.estimate import Estimate
from hpcvideo.scaling.model.step import step_parts
from hpcvideo.scaling.model.system import System, load_system
from tests.scaling.model.modelled_runs import modelled_run, small_config

TRUE = {
    "compute_efficiency_fp32": 0.31,
    "memory_efficiency": 0.5,
    "inter_bandwidth": 3e7,
    "step_overhead": 0.02,
}
KNOWN = {"rank_sigma": 0.15, "tail_probability": 0.0, "host_to_device_bandwidth": 1e9}
"""What the system says rightly: logs of these tests do not scatter, so it stands."""


@pytest.fixture(scope="module")
def guessed() -> System:
    """A laptop's numbers, off from TRUE by up to a factor of four."""
    return load_system("laptop").with_estimates({key: Estimate.known(value, "a test") for key, value in KNOWN.items()})


@pytest.fixture(scope="module")
def true_values(guessed: System) -> dict[str, float]:
    return {**guessed.values, **TRUE}


def test_known_numbers_are_found_and_larger_scales_predicted(
    tmp_path: Path, guessed: System, true_values: dict[str, float]
) -> None:
    runs = [modelled_run(tmp_path / f"n{nodes}", true_values, nodes) for nodes in (1, 2)]
    found = calibrate(runs, guessed)
    for key in ("compute_efficiency_fp32", "memory_efficiency", "inter_bandwidth", "step_overhead"):
        assert found.fitted[key].value == pytest.approx(TRUE[key], rel=0.01), key
        assert found.fitted[key].low <= TRUE[key] <= found.fitted[key].high, key
        assert found.system.values[key] == found.fitted[key].value
    for key in ("collective_efficiency", "gpu_peak_fp32", "gpu_memory_bandwidth"):  # of products whose other part is fitted
        assert found.system.estimates[key].exact and not guessed.estimates[key].exact
    assert not found.system.estimates["gpu_peak_16bit"].exact
    for nodes in (3, 8):
        run = modelled_run(tmp_path / f"far{nodes}", true_values, nodes)
        job = job_of(run)
        assert step_parts(job, found.system.values).seconds == pytest.approx(run.steps[0].step_seconds.max, rel=0.03)


def test_residuals_tell_every_part_at_every_scale(
    tmp_path: Path, guessed: System, true_values: dict[str, float]
) -> None:
    runs = [modelled_run(tmp_path / f"n{nodes}", true_values, nodes) for nodes in (1, 2)]
    rows = calibrate(runs, guessed).residuals
    assert [(row.ranks, row.part) for row in rows] == [(ranks, part) for ranks in (1, 2) for part in (*PARTS, "step")]
    steps = [row for row in rows if row.part == "step"]
    for row, run in zip(steps, runs, strict=True):
        assert row.measured == pytest.approx(run.steps[0].step_seconds.max, rel=1e-6)
        assert row.modelled == pytest.approx(row.measured, rel=0.02)


def test_runs_on_one_node_determine_no_network(tmp_path: Path, guessed: System, true_values: dict[str, float]) -> None:
    found = calibrate([modelled_run(tmp_path / "one", true_values, 1)], guessed)
    assert not {"inter_bandwidth", "inter_latency", "intra_bandwidth"} & found.fitted.keys()
    assert found.system.estimates["inter_bandwidth"] == guessed.estimates["inter_bandwidth"]
    assert any("between nodes" in sentence for sentence in found.words)


def test_what_drowns_in_the_rest_is_named_and_not_invented(
    tmp_path: Path, guessed: System, true_values: dict[str, float]
) -> None:
    runs = [modelled_run(tmp_path / f"n{nodes}", true_values, nodes) for nodes in (1, 2)]
    found = calibrate(runs, guessed)
    for key in ("inter_latency", "host_to_device_bandwidth", "decode_frames_per_core"):  # 0.2, 1 and 0 ms of a step
        assert key not in found.fitted and "do not determine" in found.undetermined[key]
        assert found.system.values[key] == guessed.values[key]
        assert any(sentence.startswith(f"{key}: ") for sentence in found.words)


def test_a_hidden_exchange_gives_a_bound_on_the_network_alone(
    tmp_path: Path, guessed: System, true_values: dict[str, float]
) -> None:
    """A network so fast that backward hides it: its speed is not determined, but it is not as slow as the system says."""
    values = {**true_values, "inter_bandwidth": 5e10, "inter_latency": 1e-6}
    slow = guessed.with_estimates({"inter_bandwidth": Estimate(1e7, 5e6, 2e7, "a test")})
    found = calibrate([modelled_run(tmp_path / f"n{nodes}", values, nodes) for nodes in (1, 2)], slow)
    assert "inter_bandwidth" not in found.fitted
    assert "at least" in found.undetermined["inter_bandwidth"]
    assert 1e7 < found.system.values["inter_bandwidth"] <= 5e10


def test_scatter_of_one_ranks_steps_gives_rank_sigma(
    tmp_path: Path, guessed: System, true_values: dict[str, float]
) -> None:
    """Lines are means of 10 steps, so a line scatters by a tenth's root of a step."""
    run = modelled_run(tmp_path / "one", true_values, 1, lines=400, scatter=0.03 / 10**0.5)
    even = guessed.with_estimates({"rank_sigma": Estimate.known(0.0, "a test")})
    estimate = calibrate([run], even).fitted["rank_sigma"]
    assert estimate.value == pytest.approx(0.03, rel=0.2)
    assert estimate.low < 0.03 < estimate.high


def test_differences_between_gpus_stay_beside_the_scatter_of_one(
    tmp_path: Path, guessed: System, true_values: dict[str, float]
) -> None:
    run = modelled_run(tmp_path / "one", true_values, 1, lines=400, scatter=0.003 / 10**0.5)
    uneven = guessed.with_estimates({"rank_sigma": Estimate(0.04, 0.02, 0.06, "a test")})
    estimate = calibrate([run], uneven).fitted["rank_sigma"]
    assert estimate.value == pytest.approx(0.0401, rel=0.01)  # the root of 0.04 and 0.003 in squares
    assert estimate.low == pytest.approx(0.02, rel=0.05) and estimate.high == pytest.approx(0.06, rel=0.05)


def test_runs_of_another_model_or_precision_are_refused(
    tmp_path: Path, guessed: System, true_values: dict[str, float]
) -> None:
    run = modelled_run(tmp_path / "one", true_values, 1)
    own = small_config()
    assert calibrate([run], guessed, own).fitted
    half = {**own.resolved()["recipe"], "precision": "bf16"}
    for changes in ({"model": {"name": "tsm_resnet50", "frames": 8}}, {"recipe": half}):
        with pytest.raises(InputError, match=r"trained tsm_resnet18 in fp32, but the plan is of tsm_resnet"):
            calibrate([run], guessed, small_config(**changes))


def test_numbers_that_a_plan_needs_and_the_runs_do_not_reach_are_named(
    tmp_path: Path, guessed: System, true_values: dict[str, float]
) -> None:
    run = modelled_run(tmp_path / "one", true_values, 1)
    found = calibrate([run], guessed)
    larger = modelled_run(tmp_path / "n8", true_values, 8)
    alone, many = not_reached(found, [job_of(run)]), not_reached(found, [job_of(larger)])
    assert alone is not None and "inter_bandwidth" not in alone
    assert many is not None and "inter_bandwidth" in many and "inter_latency" in many
    assert "compute_efficiency_fp32" not in many


def test_too_few_lines_name_what_is_missing(tmp_path: Path, guessed: System, true_values: dict[str, float]) -> None:
    found = calibrate([modelled_run(tmp_path / "one", true_values, 1, lines=6)], guessed)
    assert "8 steady step lines" in found.undetermined["rank_sigma"]
    assert "2 epochs" in found.undetermined["epoch_seconds"]


def test_runs_that_say_nothing_are_refused(tmp_path: Path, guessed: System, true_values: dict[str, float]) -> None:
    with pytest.raises(InputError, match="no run to calibrate with"):
        calibrate([], guessed)
    run = modelled_run(tmp_path / "one", true_values, 1)
    (tmp_path / "one" / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"no config\.yaml"):
        calibrate([run], guessed)
