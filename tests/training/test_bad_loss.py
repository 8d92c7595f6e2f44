"""Losses that no training comes back from: found, told, and left out with their batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from hpcvideo.config.faults import FaultsConfig
from hpcvideo.errors import OperationFailed
from hpcvideo.runs import read_events
from hpcvideo.training.bad_loss import FEWEST, WINDOW, BadLoss
from tests.conftest import run_hpcvideo

Write = Callable[[dict[str, Any]], Path]


def test_what_is_not_finite_or_far_above_the_median_of_the_last_losses_is_bad() -> None:
    judge = BadLoss(FaultsConfig(explosion_factor=3.0))
    assert "the gradient norm is nan" in str(judge.fault_of(1.0, math.nan))
    assert "the loss is inf" in str(judge.fault_of(math.inf, 1.0))
    seen = []
    for number in range(300):
        loss = 100.0 - number / 3 + (number % 7)
        assert judge.fault_of(loss) is None
        seen.append(loss)
        usual = median(seen[-WINDOW:])
        above = judge.fault_of(3.001 * usual) if len(seen) >= FEWEST else "too few"
        assert above is not None
        assert BadLoss(FaultsConfig()).fault_of(3.001 * usual) is None


def test_it_remembers_through_a_checkpoint_and_beyond_one() -> None:
    judge = BadLoss(FaultsConfig(on_bad_loss="skip", explosion_factor=2.0))
    for _ in range(FEWEST):
        judge.fault_of(1.0)
    notes = judge.notes()
    judge.leave_out(12, "the loss is 5")
    judge.load(notes)
    assert judge.left_out == [12], "the checkpoint is older than what was learnt since"
    other = BadLoss(FaultsConfig(on_bad_loss="skip", explosion_factor=2.0))
    other.load(judge.notes())
    assert other.left_out == [12] and other.fault_of(2.5) is not None


def test_it_stops_where_the_config_says_so_or_too_many_were_left_out() -> None:
    with pytest.raises(OperationFailed, match=r"step 4: the loss is nan; lower recipe\.base_lr"):
        BadLoss(FaultsConfig()).leave_out(4, "the loss is nan")
    judge = BadLoss(FaultsConfig(on_bad_loss="skip", most_skipped=2))
    judge.leave_out(4, "bad")
    judge.leave_out(9, "bad")
    with pytest.raises(OperationFailed, match="2 batches were left out already"):
        judge.leave_out(5, "bad")


@pytest.fixture
def uneven(config_values: dict[str, Any], write_config: Write) -> Path:
    """A run in which some batches' losses are above the others': the limit is so low that these count as bad."""
    config_values["recipe"] |= {"steps": 28, "global_batch": 2, "base_lr_per_64_clips": 0.3, "warmup_epochs": 0}
    config_values["data"]["validation"] = None
    config_values["checkpoint"] = {"every_steps": 4, "keep": 20}
    config_values["logging"] = {"every_steps": 1}
    config_values["faults"] = {"on_bad_loss": "skip", "explosion_factor": 1.7, "most_skipped": 20}
    return write_config(config_values)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_a_bad_batch_is_left_out_and_a_run_that_goes_on_leaves_out_the_same(
    uneven: Path, tmp_path: Path, ranks: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_hpcvideo("train", uneven, "--run", whole, ranks=ranks)
    events = list(read_events(whole / "events.jsonl"))
    rollbacks = [event for event in events if event["event"] == "rollback"]
    assert rollbacks, "the limit is meant to be passed"
    for event in rollbacks:
        assert event["to_step"] < event["skipped_batch"] <= event["step"] and event["to_step"] % 4 == 0
    skipped = {event["skipped_batch"] for event in rollbacks}
    last = {event["step"]: event for event in events if event["event"] == "step"}
    first_skip = events.index(rollbacks[0])
    after = {event["step"] for event in events[first_skip:] if event["event"] == "step"}
    assert rollbacks[0]["skipped_batch"] not in after, "a step that changes nothing has no line"
    assert events[-1]["samples"] == 28 * 2, "the step counts all the same"
    losses = [last[step]["loss"] for step in sorted(last) if step not in skipped]
    assert all(math.isfinite(loss) for loss in losses)

    # Killed after the first rollback (the later checkpoints are taken away), and started again.
    run_hpcvideo("train", uneven, "--run", cut, ranks=ranks)
    kept = min(step for step in range(4, 28, 4) if step > min(skipped))
    assert max(skipped) > kept, "what is left out later depends on losses from before"
    for folder in (cut / "checkpoints").glob("step-*"):
        if int(folder.name[5:]) > kept:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    (cut / "checkpoints" / "latest").write_text(f"step-{kept}")
    lines = (cut / "events.jsonl").read_text().splitlines()
    (cut / "events.jsonl").write_text("\n".join(line for line in lines if '"event": "end"' not in line) + "\n")
    run_hpcvideo("train", uneven, "--run", cut, ranks=ranks)
    states = [
        {file.name: file.read_bytes() for file in (run / "checkpoints" / "step-28").iterdir() if file.suffix != ".json"}
        for run in (whole, cut)
    ]
    assert states[0] == states[1]


def test_a_loss_that_is_not_finite_stops_the_run_where_leaving_out_does_not_help(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"] |= {"steps": 40, "base_lr_per_64_clips": 1e20, "gradient_clip": 0, "warmup_epochs": 0}
    config_values["checkpoint"] = {"every_steps": 1}
    config_values["faults"] = {"on_bad_loss": "skip", "most_skipped": 2}
    answer = run_hpcvideo("train", write_config(config_values), "--run", tmp_path / "run", check=False)
    assert answer.returncode == 1 and "2 batches were left out already" in answer.stderr
    kinds = [event["event"] for event in read_events(tmp_path / "run" / "events.jsonl")]
    assert kinds.count("rollback") == 2
