"""`hpcvideo selftest` in a real job: pytest runs once a node and says what it computed on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.slurm.job import SelftestJob
from hpcvideo.slurm.script import render_script
from hpcvideo.slurm.submit import submit, wait_for_job
from tests.conftest import run_hpcvideo

GPU_TESTS = Path(__file__).resolve().parents[1] / "gpu"
QUICK = GPU_TESTS / "test_self_test.py::test_bf16_runs_where_there_are_units_for_it_and_is_refused_where_there_are_none"


@pytest.mark.slurm
@pytest.mark.faults
def test_each_node_runs_the_tests_and_tells_what_it_computed_on(submitter: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = SelftestJob(
        name="selftest", run_path=run, nodes=2, ranks_per_node=6, cpus_per_rank=7, time_limit="10",
        command=(sys.executable, "-m", "pytest"), working_directory=tmp_path, tests=QUICK,
    )  # fmt: skip
    submitted = submit(render_script(job, submitter.site), run, submitter.site)
    end = wait_for_job(submitted, submitter.site)
    log = (run / "logs" / f"job-{submitted.job_id}.log").read_text()
    assert (end.state, end.exit_code) == ("COMPLETED", 0), log
    assert len(list((run / "logs").glob("selftest-rank-*.log"))) == 2, "one task a node, whatever its GPUs"
    for node in ("n1", "n2"):
        assert f"{node}: no GPU here: the CPU twin of each test ran" in log
    assert log.count("1 passed") == 2


def test_the_command_makes_a_preflight_and_a_self_test_and_needs_the_checkout_s_tests(tmp_path: Path) -> None:
    answer = json.loads(run_hpcvideo("selftest", "--site", "local", "--dry-run", "--json").stdout)
    assert [job["kind"] for job in answer["jobs"]] == ["preflight", "selftest"]
    assert all(job["waits_for"] == [] for job in answer["jobs"])
    script = answer["jobs"][1]["script"]
    assert f'run_step "${{hpcvideo[@]}}" -m gpu -q -rs -p no:cacheprovider {GPU_TESTS}\n' in script
    assert f"hpcvideo=({sys.executable} -m pytest)\n" in script
    refused = run_hpcvideo("selftest", "--site", "local", "--dry-run", "--tests", tmp_path, check=False)
    assert refused.returncode == 2 and "clone the repository and give --tests" in refused.stderr
