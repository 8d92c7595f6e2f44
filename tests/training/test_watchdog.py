"""A hang ends, and says where it was: real processes that sleep and are frozen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.training.watchdog import Report, who_is_behind
from tests.training.test_stopping import Write, rank_processes, start, wait_for_step

SLEEPER = """
import sys, time
from pathlib import Path
from hpcvideo.runs import RunDirectory
from hpcvideo.training.watchdog import Watchdog

def where_it_sleeps():
    time.sleep(600)

run, limit, asked, phase = Path(sys.argv[1]), eval(sys.argv[2]), eval(sys.argv[3]), eval(sys.argv[4])
watchdog = Watchdog(limit, RunDirectory(run), 0, ["n1"], lambda: phase, lambda: asked)
watchdog.start()
watchdog.begin()
watchdog.alive("step 7")
print("begun", flush=True)
where_it_sleeps()
"""


def sleeper(
    run: Path, limit: float | None, asked: bool = False, phase: str | None = None, program: str = SLEEPER
) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, str(run), repr(limit), repr(asked), repr(phase)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


def test_a_process_without_a_sign_of_life_writes_its_stacks_and_ends(tmp_path: Path) -> None:
    process = sleeper(tmp_path, 1.0, phase="data_wait")
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "rank 0 on n1 gave no sign of life for 1 s, after step 7, in data_wait" in said
    record = (tmp_path / "errors" / "rank-0.txt").read_text().splitlines()
    assert record[0] == "exit_code: 1" and "after step 7" in record[1] and "lost its peers" not in record[1]
    stacks = (tmp_path / "errors" / "stacks-rank-0.txt").read_text()
    assert "where_it_sleeps" in stacks and stacks.count("Thread 0x") >= 1


def test_a_suspended_process_does_not_age(tmp_path: Path) -> None:
    process = sleeper(tmp_path, 8.0)
    time.sleep(2)  # for its last sign of life to be seen
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(9)
    os.kill(process.pid, signal.SIGCONT)
    time.sleep(2)
    assert process.poll() is None and not (tmp_path / "errors").exists()
    process.kill()
    process.communicate()


def with_seconds(name: str, seconds: float) -> str:
    """SLEEPER with another value of a constant of the module."""
    change = f"import hpcvideo.training.watchdog as module\nmodule.{name} = {seconds}\n"
    return SLEEPER.replace("run, limit", f"{change}run, limit", 1)


def test_neither_a_broken_stderr_nor_a_file_that_does_not_answer_keeps_it(tmp_path: Path) -> None:
    broken = sleeper(tmp_path / "broken", 1.0)
    assert broken.stderr is not None
    broken.stderr.close()
    stacks = tmp_path / "silent" / "errors" / "stacks-rank-0.txt"
    stacks.parent.mkdir(parents=True)
    os.mkfifo(stacks)  # nobody reads it: opening it to write does not return
    silent = sleeper(tmp_path / "silent", 1.0, program=with_seconds("_LAST_WORDS_SECONDS", 3.0))
    assert "rank 0 on n1 gave no sign of life" in silent.communicate(timeout=60)[1] and silent.returncode == 1
    assert broken.wait(timeout=60) == 1
    assert (tmp_path / "broken" / "errors" / "rank-0.txt").exists()


def test_a_rank_that_waits_for_others_in_a_phase_of_work_does_not_accuse_itself(tmp_path: Path) -> None:
    call = "where_it_sleeps()\n"
    wait = SLEEPER.removesuffix(call) + f"with watchdog.waiting(lambda: sys.argv[5] == 'really'):\n    {call}"
    for really in ("really", "not"):
        process = sleeper(tmp_path / really, 1.0, phase="evaluation", program=wait.replace("sys.argv[5]", repr(really)))
        said = process.communicate(timeout=60)[1]
        assert ("all ranks wait for each other" in said) == (really == "really"), said


def test_without_a_limit_only_a_stop_that_does_not_come_ends_it(tmp_path: Path) -> None:
    impatient = with_seconds("STOP_PATIENCE_SECONDS", 1.5)
    waiting = sleeper(tmp_path / "waiting", None, program=impatient)
    stopping = sleeper(tmp_path / "stopping", None, asked=True, program=impatient)
    said = stopping.communicate(timeout=60)[1]
    assert stopping.returncode == 1 and "although it was asked to stop" in said
    assert waiting.poll() is None
    waiting.kill()
    waiting.communicate()


def test_the_ranks_that_wait_name_the_one_that_is_frozen() -> None:
    nodes = ["n1", "n1", "n2", "n2"]
    waiting, working = Report(True, ""), Report(False, "")
    assert "rank 3 on n2, which left no word" in str(who_is_behind({0: waiting, 1: waiting, 2: waiting}, nodes))
    assert who_is_behind({0: waiting, 1: working, 2: waiting, 3: waiting}, nodes) is None, "rank 1 says it itself"
    assert "all ranks wait for each other" in str(who_is_behind(dict.fromkeys(range(4), waiting), nodes))


@pytest.mark.faults
def test_a_frozen_rank_ends_the_job_and_is_named(
    config_values: dict[str, Any], write_config: Write, tmp_path: Path
) -> None:
    config_values["recipe"]["steps"] = 100000
    config_values["logging"]["every_steps"] = 1
    config_values["faults"] = {"watchdog_seconds": 15}
    process = start(write_config(config_values), "--run", tmp_path / "run", ranks=2)
    wait_for_step(process, tmp_path / "run", 3)
    frozen = rank_processes(process.pid)[1]
    os.kill(frozen, signal.SIGSTOP)
    try:
        while not (tmp_path / "run" / "errors" / "rank-0.txt").exists():
            assert process.poll() is None
            time.sleep(0.1)
    finally:
        with suppress(ProcessLookupError):  # the launcher may have ended it by then
            os.kill(frozen, signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    record = (tmp_path / "run" / "errors" / "rank-0.txt").read_text()
    assert "it waits for rank 1 on " in record and "left no word" in record
    assert "average_statistics" in record or "finish" in record or "tell" in record, "the stack of the main thread"
