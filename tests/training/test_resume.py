"""Training end to end, killed and resumed: real processes, real kills, equal bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
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

Write = Callable[[dict[str, Any]], Path]
STEPS = 40


@pytest.fixture
def config(config_values: dict[str, Any], write_config: Write) -> Path:
    config_values["recipe"] |= {"steps": STEPS, "dropout": 0.3, "ema_decay": 0.9}
    config_values["data"] |= {"flip": True, "flip_labels": {"left": "right"}, "worker_kind": "spawn"}
    config_values["checkpoint"] = {"every_steps": 3}
    config_values["evaluation"] = {"every_epochs": 5}
    return write_config(config_values)


def final_state(run: Path) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{STEPS}"
    return {name: (folder / f"{name}.safetensors").read_bytes() for name in ("weights", "optimizer", "extra")}


def start(config: Path, run: Path, ranks: int) -> subprocess.Popen[bytes]:
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1"))
    command = hpcvideo_command("train", config, "--run", run, ranks=ranks)
    return subprocess.Popen(command, env=variables, start_new_session=True, stdout=-3, stderr=-3)


def logged_steps(run: Path) -> int:
    events = read_events(run / "events.jsonl") if (run / "events.jsonl").exists() else []
    return max((event["step"] for event in events if event["event"] == "step"), default=0)


def children(process: int) -> list[int]:
    answer = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    found = [int(pid) for pid in answer.stdout.split()]
    return found + [grandchild for child in found for grandchild in children(child)]


@pytest.mark.faults
def test_killed_at_any_moment_and_started_again_it_ends_with_the_same_bits(config: Path, tmp_path: Path) -> None:
    """Two ranks; whole-job kills (launcher, proxies and ranks) at three random moments."""
    run_hpcvideo("train", config, "--run", tmp_path / "undisturbed", ranks=2)
    chance = random.Random(20261121)
    run = tmp_path / "killed"
    for kill in range(3):
        process = start(config, run, ranks=2)
        goal = logged_steps(run) + chance.randrange(4, 9)
        while process.poll() is None and logged_steps(run) < min(goal, STEPS - 10):
            time.sleep(0.005)
        time.sleep(chance.random() * 0.05)
        assert process.poll() is None, f"kill {kill} came too late"
        for victim in [process.pid, *children(process.pid)]:
            os.kill(victim, signal.SIGKILL)
        process.wait()
        assert logged_steps(run) < STEPS
    run_hpcvideo("train", config, "--run", run, ranks=2)
    assert [event["event"] for event in read_events(run / "events.jsonl")].count("resume") >= 2
    assert final_state(run) == final_state(tmp_path / "undisturbed")


def test_torchrun_and_mpiexec_train_to_the_same_bits(config: Path, tmp_path: Path) -> None:
    run_hpcvideo("train", config, "--run", tmp_path / "mpiexec", ranks=2, launched=True)
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*torchrun, "-m", "--", "hpcvideo", "train", str(config), "--run", str(tmp_path / "torchrun")],
        env=without_launcher(child_variables(OMP_NUM_THREADS="1")), check=True, timeout=300, capture_output=True,
    )  # fmt: skip
    starts = [next(iter(read_events(tmp_path / name / "events.jsonl"))) for name in ("mpiexec", "torchrun")]
    assert [start["launcher"] for start in starts] == ["mpi", "torchrun"]
    assert final_state(tmp_path / "mpiexec") == final_state(tmp_path / "torchrun")


def test_a_killed_rank_ends_the_job_at_once(config: Path, tmp_path: Path) -> None:
    process = start(config, tmp_path / "run", ranks=2)
    while process.poll() is None and logged_steps(tmp_path / "run") < 4:
        time.sleep(0.01)
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(process.pid)}
    ranks = [pid for pid, line in lines.items() if b"-m\0hpcvideo\0train" in line]
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    killed = time.monotonic()
    assert process.wait(timeout=60) != 0
    assert time.monotonic() - killed < 20, "the other rank must not wait for a timeout"


def test_ranks_and_accumulation_make_the_same_updates(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    """1 rank x 2 accumulated = 2 ranks x 1, equal micro batches, up to the order of floating-point sums."""
    config_values["recipe"] |= {"micro_batch": 4, "steps": 6, "dropout": 0.0, "mixup": 0.4, "label_smoothing": 0.1}
    config = write_config(config_values)
    states = []
    for ranks in (1, 2):
        run = tmp_path / f"ranks-{ranks}"
        run_hpcvideo("train", config, "--run", run, ranks=ranks)
        states.append(load_file(run / "checkpoints" / "step-6" / "weights.safetensors"))
        start_line = next(iter(read_events(run / "events.jsonl")))
        split = [start_line[key] for key in ("world_size", "micro_batch", "accumulation")]
        assert split == [ranks, 4, 3 - ranks]
    for name, first in states[0].items():
        # BN's statistics over time differ: one rank sees twice as many micro-batches.
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(first, states[1][name], rtol=1e-3, atol=1e-4)
    moved = (states[0]["fc.weight"] - load_initial(config_values)["fc.weight"]).abs().max()
    assert moved > 1e-3, "the weights must have moved for the comparison to mean anything"


def load_initial(values: dict[str, Any]) -> dict[str, torch.Tensor]:
    from hpcvideo.models import create_model

    torch.manual_seed(values["seed"])
    return create_model(values["model"]["name"], 3, values["model"]["frames"], **values["model"]["options"]).state_dict()


def test_a_run_resumes_on_another_number_of_ranks_and_counts_on(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(config, run, ranks=2)
    while process.poll() is None and not (run / "checkpoints" / "step-12").exists():
        time.sleep(0.01)
    for victim in [process.pid, *children(process.pid)]:
        os.kill(victim, signal.SIGKILL)
    process.wait()
    run_hpcvideo("train", config, "--run", run, ranks=1)
    events = list(read_events(run / "events.jsonl"))
    resume = next(event for event in events if event["event"] == "resume")
    assert resume["world_size"] == 1 and 9 <= resume["step"] <= STEPS
    assert events[-1]["event"] == "end" and events[-1]["samples"] == STEPS * 8


def test_a_run_learns_and_evaluate_gives_the_metrics_of_its_log(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"] |= {"steps": 60, "global_batch": 12, "base_lr_per_64_clips": 0.3}
    run_hpcvideo("train", write_config(config_values), "--run", tmp_path / "run", ranks=2)
    events = list(read_events(tmp_path / "run" / "events.jsonl"))
    logged = next(event for event in reversed(events) if event["event"] == "evaluation")
    assert logged["clips"] == 11 and logged["metrics"]["top1"] > 0.8, "bright thirds are easily told apart"
    for ranks in (1, 2):
        answer = run_hpcvideo("evaluate", tmp_path / "run", "--json", ranks=ranks)
        scored = json.loads(answer.stdout.strip().splitlines()[-1])
        assert scored["clips"] == 11 and scored["step"] == 60
        assert scored["metrics"]["top1"] == pytest.approx(logged["metrics"]["top1"])
        assert scored["metrics"]["loss"] == pytest.approx(logged["metrics"]["loss"], rel=1e-4)


def test_a_finished_run_is_left_as_it_is(config_values: dict[str, Any], write_config: Write, tmp_path: Path) -> None:
    config_values["recipe"] |= {"steps": 4, "warmup_epochs": 0}
    config = write_config(config_values)
    run_hpcvideo("train", config, "--run", tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    answer = run_hpcvideo("train", config, "--run", tmp_path / "run")
    assert "already finished after step 4" in answer.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_step_line_accounts_for_the_step_s_time(config: Path, tmp_path: Path) -> None:
    run_hpcvideo("train", config, "--run", tmp_path / "run", ranks=2)
    lines = [event for event in read_events(tmp_path / "run" / "events.jsonl") if event["event"] == "step"]
    assert sum(line["steps"] for line in lines) == STEPS
    for line in lines[1:]:
        seconds = line["seconds"]
        named = sum(spread["mean"] for phase, spread in seconds.items() if phase != "step")
        assert 0.8 * seconds["step"]["mean"] <= named <= 1.02 * seconds["step"]["mean"]
        assert {"data_wait", "to_device", "forward", "backward", "communication_exposed", "optimizer"} <= seconds.keys()
        assert all(spread["min"] <= spread["mean"] <= spread["max"] for spread in seconds.values())
