"""Jobs on a real Slurm, from the rendered template; a shell script stands in for the training."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.errors import OperationFailed
from hpcvideo.runs import RunDirectory
from hpcvideo.slurm.queue import job_state
from hpcvideo.slurm.submit import submit, wait_for_job

pytestmark = pytest.mark.slurm

FAIL = """
if [[ $SLURM_PROCID == 5 ]]; then
  printf 'exit_code: %s\\nthe shard was cut short\\n' "$1" >"$run/errors/rank-5.txt"
  exit "$1"
fi
sleep 30
"""


def test_all_nodes_are_idle_and_have_their_gpus(cluster: Any) -> None:
    assert cluster.status()["running"]
    assert set(cluster.node_states()) == {"n1", "n2", "n3", "n4"}
    assert "gpu:6" in cluster.run("sinfo", "--noheader", "--format=%G")


def test_tasks_see_their_rank_node_and_gpus(submitter: Any) -> None:
    body = """
echo "$SLURM_PROCID $SLURM_LOCALID $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES $HPCVIDEO_MASTER_ADDRESS" \
  "$HPCVIDEO_MASTER_PORT $SLURM_CPUS_PER_TASK $OMP_NUM_THREADS $HDF5_USE_FILE_LOCKING" >"$run/task-$SLURM_PROCID"
echo "said by $SLURM_PROCID"
if [[ $SLURM_PROCID == 0 ]]; then scontrol show step "$SLURM_JOB_ID.$SLURM_STEP_ID" >"$run/step"; fi
"""
    job, end = submitter.finish(body)
    assert (end.state, end.exit_code) == ("COMPLETED", 0)
    port = 20000 + job.job_id % 10000
    for rank in range(8):
        seen = (job.run / f"task-{rank}").read_text().strip()
        assert seen == f"{rank} {rank % 2} n{rank // 2 + 1} 0,1 127.0.0.1 {port} 2 1 FALSE"
        assert (job.run / "logs" / f"rank-{rank}.log").read_text() == f"said by {rank}\n"
    assert " CPUs=16 Tasks=8 " in (job.run / "step").read_text()  # srun was told the cores of each task
    assert "ranks       8 (4 x 2)" in (job.run / "logs" / f"job-{job.job_id}.log").read_text()


@pytest.mark.parametrize("code", [1, 2, 3])
def test_the_exit_code_of_the_job_is_that_of_the_rank_that_failed(submitter: Any, code: int) -> None:
    began = time.monotonic()
    job, end = submitter.finish(f"set -- {code}\n" + FAIL)
    assert (end.state, end.exit_code) == ("FAILED", code)
    assert time.monotonic() - began < 15
    log = (job.run / "logs" / f"job-{job.job_id}.log").read_text()
    assert "rank-5: the shard was cut short" in log


def test_the_first_of_several_causes_counts_and_old_ones_do_not(submitter: Any) -> None:
    errors = RunDirectory(submitter.folder / "run").errors
    errors.mkdir(parents=True)
    (errors / "rank-7.txt").write_text("exit_code: 9\nof an earlier attempt\n")
    body = """
sleep "$SLURM_PROCID"
printf 'exit_code: %s\\nlost its peers\\n' "$((SLURM_PROCID + 20))" >"$run/errors/rank-$SLURM_PROCID.txt"
trap '' TERM
sleep 4
exit 1
"""
    job, end = submitter.finish(body)
    assert end.exit_code == 20
    assert "earlier attempt" not in (job.run / "logs" / f"job-{job.job_id}.log").read_text()


def test_a_killed_rank_ends_the_job_at_once(submitter: Any) -> None:
    job = submitter.start('if [[ $SLURM_PROCID == 3 ]]; then sleep 0.5; kill -KILL "$$"; fi\nsleep 100\n')
    began = time.monotonic()
    end = wait_for_job(job, submitter.site)
    assert end.exit_code not in (0, None)
    assert time.monotonic() - began < 15  # srun's --wait=60 is not what ends it
    assert "one was killed" in (job.run / "logs" / f"job-{job.job_id}.log").read_text()


def test_a_signal_to_the_job_reaches_every_rank_and_its_code_is_kept(submitter: Any, cluster: Any) -> None:
    job = submitter.start("trap 'echo told; exit 0' USR2\n: >\"$run/up-$SLURM_PROCID\"\nwhile :; do sleep 0.1; done\n")
    _wait_for_files(job.run, "up-*", 8)
    cluster.run("scancel", "--batch", "--signal=USR2", str(job.job_id))
    end = wait_for_job(job, submitter.site)
    assert (end.state, end.exit_code) == ("COMPLETED", 0)
    assert all("told\n" in (job.run / "logs" / f"rank-{rank}.log").read_text() for rank in range(8))


def test_a_cancelled_job_is_no_success(submitter: Any, cluster: Any) -> None:
    job = submitter.start(': >"$run/up-$SLURM_PROCID"\nsleep 100\n')
    _wait_for_files(job.run, "up-*", 8)
    cluster.run("scancel", str(job.job_id))
    end = wait_for_job(job, submitter.site)
    assert end.state == "CANCELLED"
    assert end.exit_code != 0


STRANGE = "it's a \"run\" $(touch HACKED) `touch HACKED` 100% %j #x; touch HACKED & *"


def test_strange_names_work_and_run_nothing(submitter: Any) -> None:
    run = submitter.folder / STRANGE
    override = "task.name=$(touch HACKED)"
    body = 'printf "%s\\n" "$@" >"$run/arguments-$SLURM_PROCID"\necho said\n'
    job, end = submitter.finish(body, run=run, name=STRANGE, nodes=2, ranks_per_node=1, overrides=(override,))
    assert (end.state, end.exit_code) == ("COMPLETED", 0)
    config = str(submitter.folder / "config.yaml")
    for rank in range(2):
        arguments = (run / f"arguments-{rank}").read_text().splitlines()
        assert arguments == ["train", config, "--run", str(run), "--set", override]
        assert (run / "logs" / f"rank-{rank}.log").read_text() == "said\n"
    assert (run / "logs" / f"job-{job.job_id}.log").exists()
    assert not list(submitter.folder.rglob("HACKED"))


def test_each_submission_is_kept_and_noted(submitter: Any) -> None:
    first, _ = submitter.finish("true\n", nodes=1)
    second, end = submitter.finish("true\n", nodes=1)
    assert [first.script.name, second.script.name] == ["train-0001.sbatch", "train-0002.sbatch"]
    lines = (second.run / "submissions" / "jobs.jsonl").read_text().splitlines()
    assert [json.loads(line)["job_id"] for line in lines] == [first.job_id, second.job_id]
    # Slurm forgets jobs; the code is then read from what the job left behind.
    left = second.run / "submissions" / f"job-{second.job_id}.exit_code"
    assert (end.exit_code, left.read_text()) == (0, "0\n")


def test_nobody_else_may_read_what_is_submitted(submitter: Any) -> None:
    """A profile's variables stand in the script, and there may be a token among them."""
    config = submitter.folder / "run" / "submissions" / "config-0001.yaml"
    job = submitter.start("true\n", nodes=1)
    again = submit(job.script.read_text(), job.run, submitter.site, files={config: "name: a\n"})
    assert wait_for_job(again, submitter.site).exit_code == 0
    assert [path.stat().st_mode & 0o777 for path in (job.script, again.script, config)] == [0o600] * 3


def test_a_forgotten_job_gives_the_code_that_it_left_behind(submitter: Any, tmp_path: Path) -> None:
    job = submitter.start("true\n", nodes=1)
    wait_for_job(job, submitter.site)
    forgotten = replace(job, job_id=999_999)
    assert job_state(999_999, submitter.site) is None
    with pytest.raises(OperationFailed, match="forgotten"):
        wait_for_job(forgotten, submitter.site)
    (job.run / "submissions" / "job-999999.exit_code").write_text("3\n")
    assert wait_for_job(forgotten, submitter.site).exit_code == 3


def test_what_slurm_refuses_is_told_in_its_words(submitter: Any) -> None:
    run = submitter.folder / "run"
    with pytest.raises(OperationFailed, match=r"sbatch: .*Node count specification invalid"):
        submitter.start("true\n", run=run, nodes=5)
    assert not run.exists()


def test_an_unreachable_slurm_is_told(submitter: Any, tmp_path: Path, cluster: Any) -> None:
    conf = tmp_path / "slurm.conf"
    others = {"SlurmctldPort": "9", "MessageTimeout": "2"}
    lines = [line.split("=", 1) for line in cluster.slurm_conf.read_text().splitlines()]
    conf.write_text("".join(f"{key}={others.get(key, value)}\n" for key, value in lines))
    (tmp_path / "gres.conf").write_text("")
    site = submitter.site.model_copy(update={"slurm_conf": str(conf)})
    with pytest.raises(OperationFailed, match="is the cluster of site local up"):
        submit("#!/bin/bash\n", tmp_path / "run", site)


def test_rendered_scripts_are_taken_by_sbatch(submitter: Any, cluster: Any) -> None:
    golden = Path(__file__).parent / "golden" / "local.sbatch"
    done = subprocess.run(
        ["sbatch", "--test-only", str(golden)], env=cluster.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _wait_for_files(folder: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline, f"{pattern} in {folder}: not {count} files after 20 s"
        time.sleep(0.05)
