"""The large-batch experiment runs real trainings and tells what its claims promise."""

from __future__ import annotations

from pathlib import Path

import pytest
from large_batch import FULL, RUNS, Bench, Scale, measure

from hpcvideo.config.load import find_config, load_config


def test_the_large_batch_is_16_times_the_small_one_and_differs_from_it_in_nothing_else() -> None:
    small, large, cold = RUNS["small batch"], RUNS["large batch"], RUNS["large batch without warm-up"]
    assert large.batch == cold.batch == 16 * small.batch
    assert large.config == cold.config == small.config
    assert (small.warm, large.warm, cold.warm) == (True, True, False)
    assert FULL.updates(large.batch) * 16 == FULL.updates(small.batch)


def test_a_step_of_the_large_batch_sees_a_greater_share_of_the_set_than_12288_clips_of_kinetics() -> None:
    assert RUNS["large batch"].batch / FULL.train_videos > 12_288 / 240_000


def test_the_twin_without_shift_is_the_same_but_for_the_shift() -> None:
    tsm, tsn = (load_config(find_config(RUNS[name].config), []).resolved() for name in ("small batch", "TSN"))
    assert tsm.pop("model")["name"] == "tsm_resnet18" and tsn.pop("model")["name"] == "tsn_resnet18"
    assert tsm.pop("name") != tsn.pop("name")
    assert tsm == tsn


@pytest.mark.faults
def test_every_run_is_trained_and_scored_and_rates_follow_the_batch(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Scale(train_videos=128, held_out_videos=16, epochs=1), lambda text: None)
    claims = {claim.name: claim for claim in measure(bench, [1])}
    assert list(claims) == ["tsm_top1", "tsn_top1", "small_minus_large_top1"]
    assert "large_minus_no_warmup_top1" in claims["small_minus_large_top1"].details
    assert [claims[name].bound for name in ("tsm_top1", "small_minus_large_top1")] == [">= 0.95", "<= 0.02"]
    found = claims["tsm_top1"].details["runs"]
    rates = {name: runs[0]["peak_learning_rate"] for name, runs in found.items()}
    assert rates["large batch"] == rates["large batch without warm-up"] == pytest.approx(16 * rates["small batch"])
    assert {name: runs[0]["updates"] for name, runs in found.items()} == {
        "small batch": 16, "large batch": 1, "large batch without warm-up": 1, "TSN": 16,
    }  # fmt: skip
    assert found["large batch"][0]["accumulation"] == 16
    assert all(0 <= runs[0]["top1"] <= 1 for runs in found.values())
