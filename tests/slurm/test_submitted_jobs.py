"""`hpcvideo submit`, `status` and `cancel` on a real Slurm; shell scripts stand in for the work of the ranks."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hpcvideo.cli import plan_steps, training_jobs
from hpcvideo.cli.main import app
from hpcvideo.cli.shards import submit as shards_submit
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.slurm.submissions import recorded_jobs, states_of
from tests.conftest import write_frame_folders

pytestmark = [pytest.mark.slurm, pytest.mark.faults]

STRANGE = "it's a \"run\" $(touch HACKED) `touch HACKED` 100% %j #x; touch HACKED & *"

STEPS_TO_DO = """
mkdir "$run/at-work" || { echo two at once >"$run/overlap"; exit 1; }
mkdir -p "$run/checkpoints"
n=$(($(cat "$run/checkpoints/latest" 2>/dev/null || echo 0) + 1))
echo "$n" >"$run/checkpoints/latest"
sleep 0.3
rmdir "$run/at-work"
if ((n < 3)); then exit 75; fi
"""
"""A training of three jobs: each gets on by one, leaves in good order, and must not meet another."""

UNTIL_GO = 'until [[ -e $run/go ]]; do sleep 0.1; done\n'


@dataclass
class Commands:
    """hpcvideo's commands on the private cluster, for jobs of one node and one rank whose work is a shell script."""

    folder: Path
    config: Path

    def __call__(self, *arguments: str | Path | int) -> Any:
        """The result of `hpcvideo ARGUMENTS`; errors are raised as they are."""
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    def work(self, body: str) -> None:
        """What the ranks of jobs submitted from now on do; $run is the run directory of a training."""
        (self.folder / "work.sh").write_text(f"run=$4\n{body}")

    def submit(self, *arguments: str | Path | int, shape: tuple[str, ...] = ("--nodes", "1")) -> Any:
        """The answer of `hpcvideo submit`, or its exit code beside it where that is not 0."""
        answer = self("submit", self.config, "--site", "local", "--ranks-per-node", 1, *shape, *arguments, "--json")
        return {**json.loads(answer.stdout), "code": answer.exit_code}

    def status(self, run: Path) -> Any:
        """The answer of `hpcvideo status`."""
        return json.loads(self("status", run, "--json").stdout)


@pytest.fixture
def hpcvideo(
    cluster: Any, tmp_path: Path, config_values: dict[str, Any], write_config: Callable[[dict[str, Any]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Commands:  # fmt: skip
    monkeypatch.setenv("SLURM_CONF", str(cluster.slurm_conf))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for place in (training_jobs, plan_steps, shards_submit):
        monkeypatch.setattr(place, "own_command", lambda: ("/bin/bash", str(tmp_path / "work.sh")))
    return Commands(tmp_path, write_config(config_values))


def wait_until(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, "not so after 30 s"
        time.sleep(0.05)


@pytest.mark.parametrize("way", ["--chain", "--array"])
def test_jobs_of_a_chain_go_on_one_after_the_other_until_the_run_is_done(hpcvideo: Commands, way: str) -> None:
    hpcvideo.work(STEPS_TO_DO)
    run = hpcvideo.folder / "run"
    answer = hpcvideo.submit("--run", run, way, 4, "--wait")
    assert answer["code"] == 0, answer
    # The fourth job found nothing to do.
    assert (run / "checkpoints" / "latest").read_text() == "3\n" and not (run / "overlap").exists()
    codes = [job["exit_code"] for job in hpcvideo.status(run)["jobs"]]
    assert codes == [75, 75, 0, 0]
    assert len(answer["jobs"]) == (4 if way == "--chain" else 1)


def test_a_sweep_ends_in_a_report_that_leaves_out_what_failed(hpcvideo: Commands) -> None:
    hpcvideo.work("""
if [[ $1 == report ]]; then printf '%s\\n' "$@" >"$3.arguments"; exit; fi
if ((SLURM_JOB_NUM_NODES == 2)); then exit 3; fi
echo '{"event": "step", "time": 1}' >"$run/events.jsonl"
""")
    answer = hpcvideo.submit("--sweep", "1,2,4", "--run", hpcvideo.folder / "my sweep", "--wait", shape=())
    assert (answer["code"], answer["exit_code"]) == (3, 3)
    assert [job["exit_code"] for job in answer["jobs"]] == [0, 3, 0, 0]
    folder = hpcvideo.folder / "my sweep-sweep"
    report = (folder / "report.arguments").read_text().splitlines()
    scales = [str(hpcvideo.folder / f"my sweep-{scale}") for scale in ("1x1", "4x1")]
    assert report == ["report", "--out", str(folder / "report"), *scales]
    log = (folder / "logs" / f"job-{answer['jobs'][3]['job_id']}.log").read_text()
    assert "my sweep-2x1" in log and "left out" in log


def test_a_step_of_a_plan_that_fails_keeps_the_later_ones_from_starting(hpcvideo: Commands) -> None:
    write_frame_folders(hpcvideo.folder / "frames", 3, seed=1)
    hpcvideo.work('touch "$PWD/did-$1"\n[[ $1 != shards ]]\n')
    out = hpcvideo.folder / "set"
    answer = hpcvideo.submit(
        "--plan", "shard,train,report", "--shards", f"{hpcvideo.folder}/frames --out {out}", "--set", f"data.train={out}",
        "--chain", 2, "--wait",
    )  # fmt: skip
    assert answer["code"] == 1
    assert [job["state"] for job in answer["jobs"]] == ["FAILED", "CANCELLED", "CANCELLED", "CANCELLED"]
    assert [path.name for path in Path.cwd().glob("did-*")] == ["did-shards"]


def test_where_slurm_refuses_one_job_of_a_plan_none_is_left(hpcvideo: Commands) -> None:
    hpcvideo.work("sleep 60\n")
    with pytest.raises(OperationFailed, match=r"train 8x1: sbatch: .* was taken back"):
        hpcvideo.submit("--sweep", "1,8", shape=())
    jobs = recorded_jobs(Path("runs/tiny-1x1").absolute())
    assert [state.state for state in states_of(jobs)[jobs[0].job_id]] == ["CANCELLED"]
    assert not Path("runs/tiny-8x1").exists()


def test_a_second_submission_of_a_run_is_refused_unless_it_waits_for_the_first(hpcvideo: Commands) -> None:
    hpcvideo.work(UNTIL_GO)
    first = hpcvideo.submit()["job_id"]
    with pytest.raises(InputError, match=f"job {first} of this run is queued or running"):
        hpcvideo.submit()
    after = hpcvideo.submit("--after", first)["job_id"]
    with pytest.raises(InputError, match=f"job {after} of this run"):
        hpcvideo.submit("--after", first)
    chain = hpcvideo.submit("--chain", 2)
    run = Path(chain["run"])
    wait_until(lambda: hpcvideo.status(run)["state"] == "running")
    status = hpcvideo.status(run)
    assert (status["state"], len(status["jobs"])) == ("running", 4)
    assert [job["reason"] for job in status["jobs"][1:]] == ["Dependency"] * 3
    states = states_of(recorded_jobs(run))
    assert {f"afterany:{job}" in states[chain["jobs"][0]["job_id"]][0].dependency for job in (first, after)} == {True}
    ended = json.loads(hpcvideo("cancel", run, "--now", "--json").stdout)
    assert [job["how"] for job in ended["jobs"]] == ["ended at once"] + ["taken from the queue"] * 3
    assert all(job["exit_code"] for job in ended["jobs"])
    assert hpcvideo.status(run)["state"] == "cancelled"
    assert "no job of it waits or runs" in hpcvideo("cancel", run).stdout


def test_nothing_waits_for_a_job_that_failed_or_is_forgotten(hpcvideo: Commands) -> None:
    hpcvideo.work("exit 4\n")
    failed = hpcvideo.submit("--run", "first", "--wait")
    assert (failed["code"], failed["exit_code"]) == (4, 4)
    with pytest.raises(InputError, match="has ended: FAILED, exit code 4"):
        hpcvideo.submit("--run", "second", "--after", failed["job_id"])
    with pytest.raises(InputError, match="does not know this job"):
        hpcvideo.submit("--run", "second", "--after", 999_999)
    assert not Path("second").exists()


def test_a_gentle_cancel_lets_ranks_save_and_the_chain_ends(hpcvideo: Commands) -> None:
    hpcvideo.work("""
trap 'echo "{\\"event\\": \\"checkpoint\\", \\"time\\": 2, \\"step\\": 7}" >"$run/events.jsonl"; exit 75' TERM
touch "$run/up"
while :; do sleep 0.1; done
""")
    answer = hpcvideo.submit("--chain", 3)
    run = Path(answer["run"])
    wait_until((run / "up").exists)
    said = hpcvideo("cancel", run)
    assert said.exit_code == 0
    assert f"job {answer['jobs'][0]['job_id']}: FAILED, exit code 75" in said.stdout
    assert f"{run}: saved after step 7" in said.stdout
    status = hpcvideo.status(run)
    assert (status["state"], status["jobs"][0]["exit_code"]) == ("stopped", 75)
    assert [job["state"] for job in status["jobs"]] == ["FAILED", "CANCELLED", "CANCELLED"]


def test_a_rank_that_does_not_leave_is_told_of_and_ended_at_once_when_asked(hpcvideo: Commands) -> None:
    hpcvideo.work("trap '' TERM\ntouch \"$run/up\"\nwhile :; do sleep 0.1; done\n")
    run = Path(hpcvideo.submit()["run"])
    wait_until((run / "up").exists)
    said = hpcvideo("cancel", run, "--wait", 1)
    assert said.exit_code == 1 and "is still RUNNING" in said.stdout and "--now" in said.stdout
    said = hpcvideo("cancel", run, "--now")
    assert said.exit_code == 0 and "CANCELLED" in said.stdout


def test_cancelling_a_sweep_ends_its_trainings_and_its_report(hpcvideo: Commands) -> None:
    hpcvideo.work("sleep 60\n")
    answer = hpcvideo.submit("--sweep", "1,2", shape=())
    folder = Path(answer["run"])
    wait_until(lambda: hpcvideo.status(folder)["parts"][1]["state"] == "running")
    one = hpcvideo("cancel", Path("runs/tiny-1x1"), "--now")
    assert one.stdout.count("CANCELLED") == 1
    all_others = json.loads(hpcvideo("cancel", folder, "--now", "--json").stdout)
    assert [job["kind"] for job in all_others["jobs"]] == ["train", "sweep"]
    assert not [state for states in states_of(recorded_jobs(folder)).values() for state in states if state.active]


def test_the_job_reads_the_config_as_it_was_when_submitted(hpcvideo: Commands) -> None:
    before = hpcvideo.config.read_text()
    hpcvideo.work(UNTIL_GO + 'cp -- "$2" "$run/seen.yaml"\n')
    answer = hpcvideo.submit()
    hpcvideo.config.write_text("name: another\n")
    run = Path(answer["run"])
    (run / "go").touch()
    wait_until((run / "seen.yaml").exists)
    wait_until(lambda: hpcvideo.status(run)["state"] == "finished")
    assert (run / "seen.yaml").read_text().endswith(before)
    assert (run / "submissions" / "config-0001.yaml").read_text() == (run / "seen.yaml").read_text()


def test_test_only_tells_slurms_answer_and_submits_nothing(hpcvideo: Commands) -> None:
    said = hpcvideo("submit", hpcvideo.config, "--site", "local", "--ranks-per-node", 1, "--sweep", "1,2", "--test-only")
    lines = said.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["train 1x1", "train 2x1", "report"]
    assert all(re.search(r"Job \d+ to start at .* on nodes n\[?\d", line) for line in lines), lines
    with pytest.raises(OperationFailed, match="allocation failure"):
        hpcvideo.submit("--test-only", shape=("--nodes", "8"))
    assert not Path("runs").exists()


def test_strange_names_reach_the_ranks_as_they_are_and_run_nothing(hpcvideo: Commands) -> None:
    hpcvideo.work('printf "%s\\n" "$@" >"$run/arguments"\n')
    folder = hpcvideo.folder / STRANGE
    folder.mkdir()
    hpcvideo.config = hpcvideo.config.rename(folder / "config.yaml")
    run = folder / "run"
    answer = hpcvideo.submit("--run", run, "--name", STRANGE, "--chain", 2, "--wait")
    assert answer["code"] == 0, answer
    arguments = (run / "arguments").read_text().splitlines()
    assert arguments == ["train", f"{run}/submissions/config-0001.yaml", "--run", str(run)]
    assert hpcvideo.status(run)["state"] == "finished"
    assert not list(hpcvideo.folder.rglob("HACKED"))


def test_status_and_cancel_find_the_cluster_without_being_told(
    hpcvideo: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    hpcvideo.work("sleep 60\n")
    run = Path(hpcvideo.submit()["run"])
    monkeypatch.delenv("SLURM_CONF")
    wait_until(lambda: hpcvideo.status(run)["state"] == "running")
    assert hpcvideo("cancel", run, "--now").exit_code == 0
