"""Precision, wire and ZeRO in whole runs: what the log tells, and runs that go on in another layout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hpcvideo.distributed.environment import child_variables, without_launcher
from hpcvideo.runs import read_events
from tests.conftest import hpcvideo_command, run_hpcvideo
from tests.training.test_resume import children

Write = Callable[[dict[str, Any]], Path]


def test_a_run_in_fp16_tells_its_loss_scale_and_keeps_it_in_the_checkpoint(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"] |= {"precision": "fp16", "steps": 4}
    config_values["method"] |= {"wire": "fp16"}
    run_hpcvideo("train", write_config(config_values), "--run", tmp_path / "run", ranks=2)
    events = list(read_events(tmp_path / "run" / "events.jsonl"))
    start = events[0]
    if not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        assert any("recipe.precision = fp16: this CPU" in warning for warning in start["warnings"])
    weights = load_file(tmp_path / "run" / "checkpoints" / "step-4" / "weights.safetensors")
    assert (start["precision"], start["wire"], start["zero"]) == ("fp16", "fp16", 0)
    trained = sum(tensor.numel() for name, tensor in weights.items() if "running" not in name and "tracked" not in name)
    assert start["gradient_bytes"] == 2 * trained and start["gradient_buckets"] >= 1
    lines = [event for event in events if event["event"] == "step"]
    extra = load_file(tmp_path / "run" / "checkpoints" / "step-4" / "extra.safetensors")
    assert all({"loss_scale", "skipped_updates"} <= line.keys() for line in lines)
    assert float(extra["loss_scale/skipped"]) == sum(line["skipped_updates"] for line in lines)
    assert {tensor.dtype for name, tensor in weights.items() if "tracked" not in name} == {torch.float32}
    assert events[-1]["event"] == "end" and events[-1]["step"] == 4
    scored = json.loads(run_hpcvideo("evaluate", tmp_path / "run", "--json").stdout.strip().splitlines()[-1])
    assert scored["clips"] == 11


@pytest.mark.faults
def test_a_run_under_zero_goes_on_with_another_stage_and_another_number_of_ranks(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"] |= {"steps": 40, "micro_batch": 4}
    config_values["checkpoint"] = {"every_steps": 4}
    config = write_config(config_values)
    run = tmp_path / "run"
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1"))
    command = hpcvideo_command("train", config, "--run", run, "--set", "method.zero=2", ranks=2)
    process = subprocess.Popen(command, env=variables, start_new_session=True, stdout=-3, stderr=-3)
    while process.poll() is None and not (run / "checkpoints" / "step-8").exists():
        time.sleep(0.01)
    for victim in [process.pid, *children(process.pid)]:
        os.kill(victim, signal.SIGKILL)
    process.wait()
    run_hpcvideo("train", config, "--run", run, "--set", "method.zero=1", ranks=1)
    events = list(read_events(run / "events.jsonl"))
    resume = next(event for event in events if event["event"] == "resume")
    assert (events[0]["zero"], resume["zero"]) == (2, 1) and 8 <= resume["step"] < 40
    assert events[-1]["event"] == "end"
    weights, momenta = (load_file(run / f"checkpoints/step-40/{part}.safetensors") for part in ("weights", "optimizer"))
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    assert all(tensor.shape == shapes[name.removesuffix("/momentum_buffer")] for name, tensor in momenta.items())
    assert len(momenta) > 40
