"""A run that is asked to stop: real signals and files, real ranks, equal bits when it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.distributed.environment import child_variables, without_launcher
from hpcvideo.runs import read_events
from tests.conftest import hpcvideo_command, run_hpcvideo
from tests.small_disk import small_disk

Write = Callable[[dict[str, Any]], Path]
STEPS = 30


@pytest.fixture
def config(config_values: dict[str, Any], write_config: Write) -> Path:
    """Checkpoints every 7 steps and evaluations every 9 or so: stops come in between."""
    config_values["recipe"] |= {"steps": STEPS, "dropout": 0.3, "ema_decay": 0.9}
    config_values["checkpoint"] = {"every_steps": 7}
    config_values["evaluation"] = {"every_epochs": 3}
    config_values["logging"] = {"every_steps": 1}
    return write_config(config_values)


def start(*arguments: str | Path, ranks: int = 1, torchrun: bool = False) -> subprocess.Popen[str]:
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1"))
    command = hpcvideo_command("train", *arguments, ranks=ranks)
    if torchrun:
        launcher = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", str(ranks)]
        command = [*launcher, "-m", "--", "hpcvideo", "train", *map(str, arguments)]
    return subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def events_of(run: Path, kind: str) -> list[dict[str, Any]]:
    if not (run / "events.jsonl").exists():
        return []
    return [event for event in read_events(run / "events.jsonl") if event["event"] == kind]


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    while process.poll() is None and not any(event["step"] >= step for event in events_of(run, "step")):
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[1]


def rank_processes(launcher: int) -> dict[int, int]:
    """Rank -> process id of the ranks below a launcher."""
    answer = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = {int(pid): int(parent) for pid, parent in (line.split() for line in answer.stdout.splitlines())}
    found = {}
    for pid in parents:
        line, ancestor = Path(f"/proc/{pid}/cmdline"), pid
        while ancestor in parents and ancestor != launcher:
            ancestor = parents[ancestor]
        if ancestor == launcher and line.exists() and b"hpcvideo\0train" in line.read_bytes():
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            named = dict(variable.split(b"=", 1) for variable in variables if b"=" in variable)
            rank = named.get(b"PMI_RANK", named.get(b"RANK"))
            if rank is not None and b"mpiexec" not in line.read_bytes() and b"torchrun" not in line.read_bytes():
                found[int(rank)] = pid
    return found


def final_state(run: Path) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{STEPS}"
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}


@pytest.mark.faults
def test_a_signal_to_one_rank_stops_all_and_the_run_ends_with_the_same_bits(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "stopped"
    first = start(config, "--run", run, ranks=2)
    wait_for_step(first, run, 4)
    os.kill(rank_processes(first.pid)[1], signal.SIGUSR2)
    said = first.communicate(timeout=120)[1]
    assert first.returncode == 75, said
    assert "stopped by USR2 after step" in said
    (stop,) = events_of(run, "preemption")
    assert stop["cause"] == "USR2" and 4 <= stop["step"] < STEPS
    assert (run / "checkpoints" / f"step-{stop['step']}").is_dir()
    assert not list((run / "errors").glob("*")), "a stop in good order is no failure"
    assert not (run / ".run-lock").exists()

    second = start(config, "--run", run, ranks=2, torchrun=True)
    wait_for_step(second, run, stop["step"] + 3)
    os.kill(rank_processes(second.pid)[0], signal.SIGTERM)
    said = second.communicate(timeout=120)[1]
    assert [event["cause"] for event in events_of(run, "preemption")] == ["USR2", "TERM"], said

    run_hpcvideo("train", config, "--run", run, ranks=2)
    run_hpcvideo("train", config, "--run", tmp_path / "undisturbed", ranks=2)
    evaluated = [event["step"] for event in events_of(run, "evaluation")]
    assert evaluated == [event["step"] for event in events_of(tmp_path / "undisturbed", "evaluation")]
    assert final_state(run) == final_state(tmp_path / "undisturbed")


def test_files_in_the_run_directory_save_and_stop(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(config, "--run", run, "--set", "recipe.steps=100000", "--set", "checkpoint.every_steps=null")
    wait_for_step(process, run, 2)
    (run / "save-now").touch()
    while process.poll() is None and (run / "save-now").exists():
        time.sleep(0.01)
    (saved,) = events_of(run, "checkpoint")
    assert process.poll() is None and (run / "checkpoints" / f"step-{saved['step']}").is_dir()
    (run / "stop").touch()
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 93 and "delete it to go on" in said
    (stop,) = events_of(run, "preemption")
    assert stop["cause"] == "stop file" and stop["step"] > saved["step"]
    before = (run / "events.jsonl").read_bytes()
    answer = run_hpcvideo("train", config, "--run", run, "--set", "recipe.steps=100000", check=False)
    assert answer.returncode == 93 and str(run / "stop") in answer.stderr
    assert (run / "events.jsonl").read_bytes() == before


def test_save_now_on_a_full_disk_is_told_and_the_run_goes_on(config: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16 << 20) as disk:
        run = disk / "run"
        process = start(config, "--run", run, "--set", "recipe.steps=100000", "--set", "checkpoint.every_steps=null",
                        "--set", "logging.every_steps=50", "--set", "evaluation.every_epochs=null")  # fmt: skip
        try:
            wait_for_step(process, run, 50)
            for wanted in (1, 2):
                (run / "save-now").touch()
                while process.poll() is None and (run / "save-now").exists():
                    time.sleep(0.01)
                assert process.poll() is None, process.communicate()[1]
                if wanted == 1:
                    room = os.statvfs(disk)
                    (disk / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize - (256 << 10)))
            (warning,) = events_of(run, "warning")
            assert "No space left on device" in warning["sentence"] and "the run goes on" in warning["sentence"]
            assert len(events_of(run, "checkpoint")) == 1
            wait_for_step(process, run, events_of(run, "step")[-1]["step"] + 1)
            (disk / "filler").unlink()
            (run / "stop").touch()
            said = process.communicate(timeout=120)[1]
            assert process.returncode == 93, said
        finally:
            process.kill()


def test_a_run_ends_after_a_time_of_its_own(config: Path, tmp_path: Path) -> None:
    longer = ["--set", "recipe.steps=100000", "--set", "faults.exit_after_minutes=0.0001"]
    answer = run_hpcvideo("train", config, "--run", tmp_path / "run", *longer, check=False)
    assert answer.returncode == 75 and "stopped by duration before the first step" in answer.stderr


def test_a_stop_before_the_first_step_saves_nothing_and_is_no_failure(config: Path, tmp_path: Path) -> None:
    process = start(config, "--run", tmp_path / "run")
    while process.poll() is None and b"hpcvideo\0train" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    blocked = f"SigBlk:\t{1 << (signal.SIGUSR2 - 1) | 1 << (signal.SIGTERM - 1):016x}"
    while blocked not in Path(f"/proc/{process.pid}/status").read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR2)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 75 and "before the first step" in said
    assert not (tmp_path / "run" / "checkpoints").exists() and not list((tmp_path / "run").glob("errors/*"))


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_that_comes_while_modules_are_imported_is_not_lost(
    config: Path, tmp_path: Path, number: signal.Signals
) -> None:
    program = f"""
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Finder())
sys.argv = ["hpcvideo", "train", {str(config)!r}, "--run", {str(tmp_path / "run")!r}]
from hpcvideo.__main__ import main
main()
"""
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1"))
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 75, done.stderr
    assert "before the first step" in done.stderr and not events_of(tmp_path / "run", "step")


@pytest.mark.faults
def test_a_stop_in_an_evaluation_breaks_it_off_and_the_next_start_makes_up_for_it(config: Path, tmp_path: Path) -> None:
    slow = ["--set", "evaluation.batch=1", "--set", "evaluation.clips=20", "--set", "recipe.batch_norm.precise_batches=2",
            "--set", "evaluation.every_epochs=6"]  # fmt: skip
    run = tmp_path / "stopped"
    process = start(config, "--run", run, *slow)
    wait_for_step(process, run, 19)
    while process.poll() is None and not events_of(run, "statistics"):
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 75
    assert [event["step"] for event in events_of(run, "preemption")] == [19] and not events_of(run, "evaluation")
    again = start(config, "--run", run, *slow)  # and once more in the last one, whose statistics the last checkpoint keeps
    while again.poll() is None and not any(event["step"] == STEPS for event in events_of(run, "statistics")):
        time.sleep(0.002)
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=120)
    assert again.returncode == 75 and events_of(run, "preemption")[-1]["step"] == STEPS
    run_hpcvideo("train", config, "--run", run, *slow)
    run_hpcvideo("train", config, "--run", tmp_path / "undisturbed", *slow)
    scores = [[(event["step"], event["metrics"]) for event in events_of(tmp_path / name, "evaluation")]
              for name in ("stopped", "undisturbed")]  # fmt: skip
    assert scores[0] == scores[1] and scores[0][0][0] == 19
    assert final_state(run) == final_state(tmp_path / "undisturbed")


def test_a_second_job_of_the_run_refuses_and_touches_nothing(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start(config, "--run", run, "--set", "recipe.steps=100000")
    wait_for_step(first, run, 2)
    lock = json.loads((run / ".run-lock").read_text())
    second = run_hpcvideo("train", config, "--run", run, "--set", "recipe.steps=100000", check=False)
    assert second.returncode == 2
    assert f"process {first.pid} on {lock['node']} is training in this run directory now" in second.stderr
    assert len(events_of(run, "start")) == 1 and not list((run / "errors").glob("*"))
    wait_for_step(first, run, events_of(run, "step")[-1]["step"] + 1)
    first.kill()
    first.communicate()
    third = run_hpcvideo("train", config, "--run", run, "--set", "recipe.steps=100000",
                         "--set", "faults.exit_after_minutes=0.0001", check=False)  # fmt: skip
    assert third.returncode == 75, "a dead holder's lock is taken over"
