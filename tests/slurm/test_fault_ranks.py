"""Ranks that are there and do not move, and ranks of two jobs where there should be one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest

from hpcvideo.slurm.submissions import SubmittedJob
from tests.conftest import run_hpcvideo
from tests.slurm.conftest import HOST_MEGABYTES
from tests.slurm.fault_run import SAVE_STEPS, FaultRun, wait_until

pytestmark = pytest.mark.slurm
WATCHDOG_SECONDS = 15
SLACK_SECONDS = 40
"""Ranks write what they know and wait for each other's words, and Slurm ends the job; on a busy machine."""
WATCHDOG = ("--set", f"faults.watchdog_seconds={WATCHDOG_SECONDS}")


@pytest.mark.faults
def test_a_rank_that_only_sleeps_is_named_by_the_others_and_the_next_job_goes_on(
    fault_run: FaultRun, undisturbed: FaultRun
) -> None:
    first, second = fault_run.submit("--chain", 2, *WATCHDOG)
    with fault_run.held_after(SAVE_STEPS + 2) as ranks:
        pass  # the others go on
    os.kill(ranks[1], signal.SIGSTOP)
    wait_until(lambda: not fault_run.state(first).active, "its end", WATCHDOG_SECONDS + SLACK_SECONDS)
    log = fault_run.log(first)
    assert "it waits for rank 1 on h2, which left no word: frozen, or cut off" in log
    assert fault_run.wait([first, second]) == [1, 0], fault_run.told()
    fault_run.assert_ends_as(undisturbed)


@pytest.mark.faults
def test_a_rank_that_hangs_in_its_own_work_says_where_and_the_next_job_goes_on(
    fault_run: FaultRun, undisturbed: FaultRun
) -> None:
    """A decoding worker of rank 1 stands still, as one does that reads from a file server that does not answer."""
    first, second = fault_run.submit("--chain", 2, *WATCHDOG, "--set", "data.worker_kind=spawn")
    with fault_run.held_after(SAVE_STEPS + 2) as ranks:
        (worker,) = [child.pid for child in psutil.Process(ranks[1]).children() if "hpcvideo-data-worker" in child.cmdline()]
        os.kill(worker, signal.SIGSTOP)
    errors = fault_run.directory.errors
    wait_until((errors / "stacks-rank-1.txt").exists, "its stacks", WATCHDOG_SECONDS + SLACK_SECONDS)
    wait_until(lambda: not fault_run.state(first).active, "its end", SLACK_SECONDS)
    (cause,) = [line for line in fault_run.log(first).splitlines() if "  rank-" in line]
    assert "rank-1: rank 1 on h2 gave no sign of life" in cause and "in data_wait" in cause
    assert fault_run.wait([first, second]) == [1, 0], fault_run.told()
    assert not psutil.pid_exists(worker), "nothing is left behind"
    fault_run.assert_ends_as(undisturbed)


EATER = """
import sys, time
held = []
while True:
    held.append(bytearray(b"x") * (4 << 20))
    time.sleep(0.02)
"""


@pytest.mark.faults
def test_a_rank_that_the_kernel_kills_for_want_of_memory_ends_its_job_and_the_next_goes_on(
    fault_run: FaultRun, undisturbed: FaultRun
) -> None:
    """Something else on the node eats what is left of its memory; the kernel then kills the largest, which is the rank."""
    hosts = fault_run.cluster.hosts
    killed = hosts.memory_kills("h2")
    first, second = fault_run.submit("--chain", 2)
    with fault_run.held_after(SAVE_STEPS + 2) as ranks:
        try:
            hosts.leave_memory("h2", 64)
        except OSError as error:
            pytest.skip(f"the memory of a host cannot be limited here: {error}")
        eater = subprocess.Popen([*hosts.before_slurmd("h2"), sys.executable, "-S", "-c", EATER])
        try:
            wait_until(lambda: hosts.memory_kills("h2") > killed, "the kernel's kill", seconds=60)
        finally:
            eater.kill()
            eater.wait()
            hosts.change_memory("h2", HOST_MEGABYTES)
    wait_until(lambda: not fault_run.state(first).active, "the end of the job, long before any timeout", seconds=30)
    assert not psutil.pid_exists(ranks[1])
    assert fault_run.wait([first, second]) == [137, 0], fault_run.told()
    assert "one was killed" in fault_run.log(first)
    fault_run.assert_ends_as(undisturbed)


@pytest.fixture
def submit_again(fault_run: FaultRun) -> Callable[[SubmittedJob], SubmittedJob]:
    """Hands a job's script in once more, which `hpcvideo submit` would refuse to do."""

    def submit(job: SubmittedJob) -> SubmittedJob:
        answer = fault_run.cluster.run("sbatch", "--parsable", str(job.script))
        return SubmittedJob(int(answer.strip().split(";")[0]), job.run, job.script, job.cluster)

    return submit


@pytest.mark.faults
def test_of_two_jobs_of_one_run_one_trains_and_the_other_refuses(
    fault_run: FaultRun, undisturbed: FaultRun, submit_again: Callable[[SubmittedJob], SubmittedJob]
) -> None:
    # Both start at once on the same nodes: neither script sees the other's lock, but the ranks do.
    (job,) = fault_run.submit(exclusive=False, cores_per_node=2, sbatch_options=["--nodelist=h[1-3]"])
    rival = submit_again(job)
    with fault_run.held_after(SAVE_STEPS + 2):
        holder = json.loads(fault_run.directory.lock.read_text())["job_id"]
        refused = run_hpcvideo(
            "submit", fault_run.config, "--site", fault_run.path.parent / "site.yaml", "--run", fault_run.path,
            "--nodes", "1", check=False,
        )  # fmt: skip
        assert refused.returncode == 2 and "of this run is queued or running; wait for it" in refused.stderr
        late = submit_again(job)
        before = fault_run.directory.events.read_bytes()
        assert fault_run.wait([late]) == [2], fault_run.told()
        assert f"job {holder} is training in this run directory now" in fault_run.log(late)
        assert fault_run.directory.events.read_bytes() == before
    winner, loser = (job, rival) if str(job.job_id) == holder else (rival, job)
    assert fault_run.wait([winner, loser]) == [0, 2], fault_run.told()
    assert "training in this run directory now" in fault_run.log(loser) or "in the same moment" in fault_run.log(loser)
    fault_run.assert_ends_as(undisturbed)
