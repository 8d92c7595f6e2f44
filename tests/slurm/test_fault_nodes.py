"""Nodes that lose their power or their cable in mid-training. Nothing hangs, and the training goes on without them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.slurm.fault_run import SAVE_STEPS, FaultRun, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.faults]
WATCHDOG_SECONDS = 15
SLACK_SECONDS = 20
"""Ranks write what they know, wait for each other's words, and end; on a busy machine."""


@pytest.mark.parametrize("node", ["h1", "h3"])
def test_a_job_whose_node_loses_its_power_goes_on_with_the_spare_one(
    node: str, fault_run: FaultRun, undisturbed: FaultRun
) -> None:
    """h1 runs the batch script and rank 0, which holds the run's lock."""
    (job,) = fault_run.submit()
    with fault_run.held_after(SAVE_STEPS + 2):
        saved = fault_run.saved()
        fault_run.cluster.kill_node(node)
    fault_run.wait_for_restart(job)
    assert fault_run.wait([job]) == [0], fault_run.told()
    assert fault_run.cluster.node_states()[node] == "down*"
    (resume,) = fault_run.events("resume")
    assert f"step-{resume['step']}" == saved and resume["job_id"] == str(job.job_id)
    fault_run.assert_ends_as(undisturbed)


@pytest.fixture
def node_timeout(host_cluster: Any) -> Iterator[Callable[[int], None]]:
    """Sets the seconds after which Slurm gives up a silent node: 300 on a usual cluster, a few on this one."""
    conf, usual = host_cluster.slurm_conf, host_cluster.slurm_conf.read_text()

    def change(seconds: int) -> None:
        conf.write_text(re.sub(r"SlurmdTimeout=\d+", f"SlurmdTimeout={seconds}", usual))
        host_cluster.run("scontrol", "reconfigure")

    yield change
    conf.write_text(usual)
    host_cluster.run("scontrol", "reconfigure")


def test_a_cut_link_hangs_the_ranks_no_longer_than_the_watchdog_allows(
    node_timeout: Callable[[int], None], fault_run: FaultRun, undisturbed: FaultRun
) -> None:
    """Slurm alone would notice after minutes, and gloo after half an hour."""
    node_timeout(300)
    jobs = fault_run.submit("--chain", 2, "--set", f"faults.watchdog_seconds={WATCHDOG_SECONDS}")
    with fault_run.held_after(SAVE_STEPS + 2):
        fault_run.cluster.cut("h3")
    wait_until(lambda: not fault_run.ranks(), "all ranks gone", WATCHDOG_SECONDS + SLACK_SECONDS)
    cause = (fault_run.directory.errors / "rank-0.txt").read_text()
    assert "all ranks wait for each other, so what is between them is broken: a network card, a link or a switch" in cause
    stacks = (fault_run.directory.errors / "stacks-rank-1.txt").read_text()
    assert "boundary.py" in stacks or "end_to_end.py" in stacks, "it tells in which line the rank waits"
    node_timeout(10)
    assert fault_run.wait(jobs)[-1] == 0, fault_run.told()
    assert fault_run.cluster.node_states()["h3"] == "down*"
    fault_run.assert_ends_as(undisturbed)
