"""What the train script does when ranks stop, on a real Slurm: start again, hand on to the chain, or stop it."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.slurm.queue import job_state
from hpcvideo.slurm.script import render_script
from hpcvideo.slurm.submit import SubmittedJob, wait_for_job

pytestmark = pytest.mark.slurm

TRAIN = """
attempt=${SLURM_RESTART_COUNT:-0}
stop() {
  if [[ $SLURM_PROCID == 0 && -n $progress ]]; then
    mkdir -p "$run/checkpoints"
    echo "step-$((attempt + 1))" >"$run/checkpoints/latest"
  fi
  exit 75
}
trap stop USR2 TERM
: >"$run/up-$attempt-$SLURM_PROCID"
if ((attempt == 1)); then echo done; exit 0; fi
while :; do sleep 0.1; done
"""
"""Waits for a signal; then stops in good order, with a new checkpoint where $progress is set. The second start finishes."""

SHAPE = {"nodes": 2, "ranks_per_node": 2}


def wait_until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"after 60 s: not {what}"
        time.sleep(0.1)


def wait_until_up(run: Path, attempt: int = 0) -> None:
    wait_until(lambda: len(list(run.glob(f"up-{attempt}-*"))) == 4, f"4 ranks of attempt {attempt} in {run}")


def log_of(job: SubmittedJob) -> str:
    return (job.run / "logs" / f"job-{job.job_id}.log").read_text()


def with_requeue(submitter: Any, **changes: Any) -> Any:
    submitter.site = submitter.site.model_copy(update={"requeue": True, **changes})
    return submitter


def stopped(submitter: Any, cluster: Any, body: str, signal: str = "USR2", **fields: Any) -> SubmittedJob:
    """A job that was told to end by `signal` to its batch script, as Slurm does before the time limit."""
    job = submitter.start(body, **SHAPE, **fields)
    wait_until_up(job.run)
    cluster.run("scancel", "--batch", f"--signal={signal}", str(job.job_id))
    return job


@pytest.mark.faults
def test_a_job_that_got_on_before_its_time_limit_starts_itself_again(submitter: Any, cluster: Any) -> None:
    job = stopped(with_requeue(submitter), cluster, "progress=1\n" + TRAIN, again=("hpcvideo", "submit", "a b"))
    wait_until(lambda: "Restarts=1" in cluster.run("scontrol", "show", "job", str(job.job_id)), "requeued")
    # Slurm lets a requeued job wait two minutes; a start within the second of the requeue fails on the revoked credential.
    time.sleep(2.0)
    cluster.run("scontrol", "update", f"JobId={job.job_id}", "StartTime=now")
    end = wait_for_job(job, submitter.site)
    assert (end.state, end.exit_code) == ("COMPLETED", 0)
    log = log_of(job)
    assert log.count("exit code 75, ") == 1 and log.count("exit code 0, ") == 1, "both attempts tell in one log"
    assert "goes on at  the beginning" in log and "goes on at  step-1" in log
    assert (job.run / "submissions" / "finished").exists()
    assert not (job.run / "submissions" / "chain-stopped").exists()
    assert not list((job.run / "errors").iterdir())


def test_a_job_that_did_not_get_on_stops_for_good(submitter: Any, cluster: Any) -> None:
    job = stopped(with_requeue(submitter), cluster, "progress=\n" + TRAIN, again=("hpcvideo", "submit", "a b"))
    end = wait_for_job(job, submitter.site)
    assert (end.state, end.exit_code) == ("FAILED", 93)
    assert "nothing was done in this attempt" in log_of(job) and "to go on: hpcvideo submit 'a b'\n" in log_of(job)
    assert (job.run / "submissions" / "chain-stopped").exists()
    assert (job.run / "submissions" / f"job-{job.job_id}.exit_code").read_text() == "93\n"


def test_a_job_starts_itself_again_no_more_often_than_its_site_allows(submitter: Any, cluster: Any) -> None:
    job = stopped(with_requeue(submitter, most_restarts=0), cluster, "progress=1\n" + TRAIN)
    end = wait_for_job(job, submitter.site)
    assert (end.state, end.exit_code) == ("FAILED", 75)
    assert "started again 0 times, and the profile of the site allows no more (most_restarts)" in log_of(job)


def test_a_job_that_is_told_to_end_for_good_does_not_come_back(submitter: Any, cluster: Any) -> None:
    job = stopped(with_requeue(submitter), cluster, "progress=1\n" + TRAIN, signal="TERM")
    end = wait_for_job(job, submitter.site)
    assert (end.state, end.exit_code) == ("FAILED", 75), "the ranks had their time to write a checkpoint"
    assert "not the time limit: not started again" in log_of(job)
    assert (job.run / "checkpoints" / "latest").read_text() == "step-1\n"


def test_ranks_that_stop_without_any_signal_are_started_again(submitter: Any, cluster: Any) -> None:
    """As they do after the time that the config allows them."""
    body = 'mkdir -p "$run/checkpoints"\necho "step-$SLURM_JOB_ID" >"$run/checkpoints/latest"\nexit 75\n'
    job = with_requeue(submitter).start(body, nodes=1)
    wait_until(lambda: "Restarts=1" in cluster.run("scontrol", "show", "job", str(job.job_id)), "requeued")
    cluster.run("scancel", str(job.job_id))


def test_ranks_that_were_stopped_by_hand_stop_the_chain(submitter: Any) -> None:
    body = 'mkdir -p "$run/checkpoints"\necho "step-$SLURM_JOB_ID" >"$run/checkpoints/latest"\nexit 93\n'
    job, end = with_requeue(submitter).finish(body, nodes=1)
    assert (end.state, end.exit_code) == ("FAILED", 93)
    assert "stopped by hand" in log_of(job)
    assert (job.run / "submissions" / "chain-stopped").exists()


@pytest.mark.parametrize("links", [(1, 3), (0, 3)])
def test_a_link_of_a_chain_leaves_going_on_to_the_next(links: tuple[int, int], submitter: Any, cluster: Any) -> None:
    job = stopped(with_requeue(submitter), cluster, "progress=1\n" + TRAIN, chain=links)
    end = wait_for_job(job, submitter.site)
    assert (end.state, end.exit_code) == ("FAILED", 75)
    assert "job 1 of a chain of 3" in log_of(job) and "the next job of the chain goes on" in log_of(job)
    assert not (job.run / "submissions" / "chain-stopped").exists()


@pytest.mark.parametrize(
    ("file", "code"), [("submissions/finished", 0), ("submissions/chain-stopped", 93), ("stop", 93)]
)
def test_later_links_end_before_they_start_a_rank(file: str, code: int, submitter: Any) -> None:
    run = submitter.folder / "run"
    (run / "errors").mkdir(parents=True)
    (run / "errors" / "rank-1.txt").write_text("exit_code: 1\nthe cause that an earlier job had\n")
    (run / file).parent.mkdir(exist_ok=True)
    (run / file).write_text("job 7 did\n")
    job, end = submitter.finish(': >"$run/started"\n', chain=(2, 3), nodes=1)
    assert end.exit_code == code
    assert not (run / "started").exists()
    assert (run / "errors" / "rank-1.txt").exists(), "what stopped the chain stays to be read"
    assert (run / "submissions" / f"job-{job.job_id}.exit_code").read_text() == f"{code}\n"


def test_a_chain_stops_where_a_job_fails_without_having_got_on(submitter: Any) -> None:
    job, end = submitter.finish("exit 1\n", chain=(1, 3), nodes=1)
    assert end.exit_code == 1
    assert "failed before it had got any further" in (job.run / "submissions" / "chain-stopped").read_text()
    (job.run / "submissions" / "chain-stopped").unlink()
    got_on = 'mkdir -p "$run/checkpoints"\necho step-1 >"$run/checkpoints/latest"\nexit 1\n'
    job, end = submitter.finish(got_on, chain=(1, 3), nodes=1)
    assert end.exit_code == 1
    assert not (job.run / "submissions" / "chain-stopped").exists(), "the next job goes on from step 1"


def test_the_second_of_two_jobs_of_a_run_touches_nothing(submitter: Any, cluster: Any) -> None:
    first = submitter.start(': >"$run/up-0-$SLURM_PROCID"\nsleep 60\n', **SHAPE)
    wait_until_up(first.run)
    (first.run / ".run-lock").write_text(json.dumps({"host": "n1", "process": 1, "job_id": str(first.job_id)}))
    (first.run / "errors" / "rank-1.txt").write_text("exit_code: 1\nof the first\n")
    second, end = submitter.finish(': >"$run/second"\n', nodes=1)
    assert end.exit_code == 2
    assert f"job {first.job_id} is training in this run directory now" in log_of(second)
    assert (first.run / "errors" / "rank-1.txt").exists() and not (first.run / "second").exists()
    cluster.run("scancel", str(first.job_id))
    assert wait_for_job(first, submitter.site).state == "CANCELLED"
    _, end = submitter.finish(': >"$run/third"\n', nodes=1)
    assert end.exit_code == 0, "a lock that a dead job left binds nobody"


def test_a_job_whose_ranks_are_refused_leaves_the_winner_s_records_and_chain_alone(submitter: Any, cluster: Any) -> None:
    """Two that start in the same moment: the winner's lock is there only when the ranks of the other have begun."""
    winner = submitter.start(': >"$run/up-0-$SLURM_PROCID"\nsleep 1000\n', **SHAPE)
    wait_until_up(winner.run)
    refused = f"""
if ((SLURM_PROCID > 0)); then sleep 2; exit 2; fi
printf '{{"host": "n1", "process": 1, "job_id": "{winner.job_id}"}}' >"$run/.run-lock"
printf 'exit_code: 1\nof the winner\n' >"$run/errors/rank-1.txt"
echo "hpcvideo: $run/.run-lock: job {winner.job_id} (process 1 on n1) is training in this run directory now; wait for it" >&2
exit 2
"""
    rival, end = submitter.finish(refused, chain=(1, 3), **SHAPE)
    assert end.exit_code == 2
    assert f"job {winner.job_id} is training in this run directory now\nexit code 2, " in log_of(rival)
    assert [path.name for path in (rival.run / "errors").iterdir()] == ["rank-1.txt"]
    assert (rival.run / "errors" / "rank-1.txt").read_text() == "exit_code: 1\nof the winner\n"
    assert not (rival.run / "submissions" / "chain-stopped").exists()
    assert (rival.run / "submissions" / f"job-{rival.job_id}.exit_code").read_text() == "2\n"
    cluster.run("scancel", str(winner.job_id))
    assert wait_for_job(winner, submitter.site).state == "CANCELLED"
    # The lock stays behind, and its job is no more: this refusal has a cause of its own, which stops the chain.
    rival, end = submitter.finish("echo 'hpcvideo: no such key' >&2\nexit 2\n", chain=(1, 3), nodes=1)
    assert end.exit_code == 2 and re.search(r"  rank-[01]: hpcvideo: no such key\n", log_of(rival)), log_of(rival)
    assert (rival.run / "submissions" / "chain-stopped").exists()


@pytest.mark.parametrize("signal", ["USR2", "TERM"])
@pytest.mark.parametrize("during", ["preflight", "archive"])
def test_a_job_that_is_told_to_stop_before_its_ranks_start_leaves_in_order(
    during: str, signal: str, submitter: Any, cluster: Any, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"preflight": True}
    checking = tmp_path / "run" / "checking"
    if during == "archive":  # nobody writes into it, so whoever copies it waits
        submitter.site = submitter.site.model_copy(update={"node_local": f"{tmp_path}/local/{{node}}"})
        fields = {"archive": tmp_path / "environment.tar"}
        os.mkfifo(fields["archive"])
        checking = tmp_path / "local" / "n2"
    body = 'if [[ $1 == preflight ]]; then : >"$3/checking"; sleep 1000; fi\n: >"$run/started"\n'
    job = with_requeue(submitter).start(body, chain=(1, 3), **SHAPE, **fields)
    wait_until(checking.exists, f"{during} under way")
    cluster.run("scancel", "--batch", f"--signal={signal}", str(job.job_id))
    end = wait_for_job(job, submitter.site)
    assert (end.state, end.exit_code) == ("FAILED", 75), log_of(job)
    assert "told to stop before the ranks were started\nexit code 75, " in log_of(job)
    assert (job.run / "submissions" / f"job-{job.job_id}.exit_code").read_text() == "75\n"
    assert not (job.run / "submissions" / "chain-stopped").exists() and not (job.run / "started").exists()
    assert not list(tmp_path.glob("local/*/*")), "no copy is left behind"


def test_a_rank_s_own_record_is_kept(submitter: Any) -> None:
    body = 'printf "exit_code: 1\\nthe true cause\\nits details\\n" >"$run/errors/rank-$SLURM_PROCID.txt"\nexit 1\n'
    stacks = submitter.folder / "run" / "errors" / "stacks-rank-7.txt"
    stacks.parent.mkdir(parents=True)
    stacks.write_text("of an earlier attempt")
    job, _ = submitter.finish(body, nodes=1, ranks_per_node=1)
    assert not stacks.exists()
    assert (job.run / "errors" / "rank-0.txt").read_text().endswith("the true cause\nits details\n")
    job, _ = submitter.finish("echo 'hpcvideo: no record of its own' >&2\nexit 2\n", nodes=1, ranks_per_node=1)
    assert (job.run / "errors" / "rank-0.txt").read_text() == "exit_code: 2\nhpcvideo: no record of its own\n"
    job, end = submitter.finish("exit 3\n", nodes=1, ranks_per_node=1)
    assert end.exit_code == 3
    assert "  rank-0: it ended with exit code 3 and told no reason\n" in log_of(job)


@pytest.mark.parametrize("ending", ['kill -KILL "$$"', "exit 3"])
def test_a_child_that_outlives_its_rank_does_not_keep_the_job(ending: str, submitter: Any) -> None:
    """As a loader's process does, which holds the rank's output open."""
    began = time.monotonic()
    job = submitter.start(f"if ((SLURM_PROCID == 1)); then sleep 100 & {ending}; fi\nsleep 100\n", **SHAPE)
    end = wait_for_job(job, submitter.site)
    assert end.state == "FAILED"
    assert time.monotonic() - began < 30
    assert job_state(job.job_id, submitter.site).exit_code in (3, 137, 143)


def test_ranks_that_hang_when_others_have_ended_are_a_failure(submitter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """srun ends them after --wait, which is cut short here."""

    def hurried(job: Any, site: Any) -> str:
        return render_script(job, site).replace("--wait=60", "--wait=2")

    monkeypatch.setattr("tests.slurm.conftest.render_script", hurried)
    hangs = "if ((SLURM_PROCID == 2)); then trap '' TERM; while :; do sleep 1; done; fi\n"
    job, end = submitter.finish(hangs, **SHAPE)
    assert end.state == "FAILED" and end.exit_code > 128
    assert "no rank told a cause: one was killed" in log_of(job)
    assert not (job.run / "submissions" / "finished").exists()
