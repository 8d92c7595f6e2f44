"""Jobs that end before their training has: killed, at their time limit, requeued, preempted. The training goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.slurm.fault_run import SAVE_STEPS, STEPS, FaultRun, is_pending, stands_still, wait_until

pytestmark = pytest.mark.slurm


def last_saved(run: FaultRun) -> int:
    """The step of the newest whole checkpoint."""
    return int(run.saved().removeprefix("step-"))


def test_a_killed_rank_ends_its_job_at_once_and_the_next_of_the_chain_goes_on(
    fault_run: FaultRun, undisturbed: FaultRun
) -> None:
    first, second = fault_run.submit("--chain", 2)
    with fault_run.held_after(SAVE_STEPS + 2) as ranks:
        saved = last_saved(fault_run)
        os.kill(ranks[1], signal.SIGKILL)
    wait_until(lambda: not fault_run.state(first).active, "the end of the job, long before any timeout", seconds=30)
    assert fault_run.wait([first, second]) == [137, 0], fault_run.told()
    assert "one was killed" in fault_run.log(first)
    (resume,) = fault_run.events("resume")
    assert saved <= resume["step"] < STEPS and resume["job_id"] == str(second.job_id)
    fault_run.assert_ends_as(undisturbed)


@pytest.mark.faults
def test_three_jobs_of_a_chain_finish_one_run_at_their_time_limits(fault_run: FaultRun, undisturbed: FaultRun) -> None:
    jobs = fault_run.submit("--chain", 3, warning_seconds=20)
    saved = ""
    for job in jobs[:2]:
        with fault_run.held_after(0, saved) as ranks:
            # Its limit draws near: Slurm looks every 30 s, and warns where less than the warning's 20 s and these are left.
            end = datetime.now() + timedelta(seconds=45)
            fault_run.cluster.run("scontrol", "update", f"JobId={job.job_id}", f"EndTime={end:%Y-%m-%dT%H:%M:%S}")
            wait_until(lambda: all(is_pending(pid, signal.SIGUSR2) for pid in ranks), "Slurm's warning", seconds=60)
        fault_run.wait([job])
        saved = fault_run.saved()
    assert fault_run.wait(jobs) == [75, 75, 0], fault_run.told()
    stops = fault_run.events("preemption")
    assert [stop["cause"] for stop in stops] == ["USR2", "USR2"]
    resumes = fault_run.events("resume")
    assert [resume["step"] for resume in resumes] == [stop["step"] for stop in stops]
    assert [resume["job_id"] for resume in resumes] == [str(job.job_id) for job in jobs[1:]]
    steps = [event["step"] for event in fault_run.events("step")]
    assert steps == sorted(set(steps)), "no step is done twice"
    fault_run.assert_ends_as(undisturbed)


@pytest.mark.faults
def test_a_requeued_job_goes_on_in_its_next_start(fault_run: FaultRun, undisturbed: FaultRun) -> None:
    (job,) = fault_run.submit()
    with fault_run.held_after(SAVE_STEPS + 2):
        fault_run.cluster.run("scontrol", "requeue", str(job.job_id))
    fault_run.wait_for_restart(job)
    assert fault_run.wait([job]) == [0], fault_run.told()
    (resume,) = fault_run.events("resume")
    assert resume["job_id"] == str(job.job_id) and resume["step"] >= SAVE_STEPS
    assert fault_run.log(job).count("exit code 0, ") == 1
    fault_run.assert_ends_as(undisturbed)


@pytest.fixture
def urgent_partition(host_cluster: Any) -> Iterator[str]:
    """A partition whose jobs take the nodes of those in the usual one, which get some time to leave."""
    host_cluster.run("scontrol", "update", "PartitionName=local", "PreemptMode=REQUEUE", "GraceTime=60")
    host_cluster.run("scontrol", "create", "PartitionName=urgent", "Nodes=ALL", "PriorityTier=10", "PreemptMode=OFF")
    yield "urgent"
    host_cluster.recover()
    host_cluster.run("scontrol", "delete", "PartitionName=urgent")


@pytest.mark.faults
def test_a_preempted_job_saves_makes_room_and_goes_on_later(
    fault_run: FaultRun, undisturbed: FaultRun, urgent_partition: str
) -> None:
    (job,) = fault_run.submit()
    with fault_run.held_after(SAVE_STEPS + 2) as ranks:
        fault_run.cluster.run("sbatch", "--partition", urgent_partition, "--nodes=4", "--exclusive", "--output=/dev/null",
                              "--wrap=sleep 1")  # fmt: skip
        wait_until(lambda: not any(map(stands_still, ranks)), "Slurm's signals; it sends CONT before TERM", seconds=60)
    fault_run.wait_for_restart(job)
    assert fault_run.wait([job]) == [0], fault_run.told()
    (stop,) = fault_run.events("preemption")
    (resume,) = fault_run.events("resume")
    assert stop["cause"] == "TERM" and resume["step"] == stop["step"], "no step is done twice"
    fault_run.assert_ends_as(undisturbed)
