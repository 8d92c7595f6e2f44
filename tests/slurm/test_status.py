"""The status of a run as a function of its directory and of what Slurm says. No Slurm is needed here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from hpcvideo.cli.main import app
from hpcvideo.cli.status_view import status_view
from hpcvideo.errors import InputError
from hpcvideo.runs.failure import record_failure
from hpcvideo.slurm.commands import KnownCluster
from hpcvideo.slurm.progress import read_progress
from hpcvideo.slurm.queue import JobState
from hpcvideo.slurm.status import RunStatus, run_status
from hpcvideo.slurm.submissions import SubmittedJob, note_job, recorded_jobs

NOW = 10_000.0
START = {
    "event": "start", "time": 9000.0, "run": "tiny", "step": 0, "world_size": 4, "nodes": 2, "global_batch": 64,
    "total_steps": 100, "warnings": ["few updates"],
}  # fmt: skip


def step(number: int, time: float, seconds: float = 0.5, steps: int = 10, **more: Any) -> dict[str, Any]:
    spread = {"min": seconds / 2, "mean": seconds, "max": seconds}
    return {"event": "step", "time": time, "step": number, "steps": steps, "epoch": number / 50, "loss": 1.25,
            "samples": number * 64, "seconds": {"step": spread}, **more}  # fmt: skip


EVENTS = [
    START,
    step(10, 9010, seconds=9.0),
    {"event": "checkpoint", "time": 9011, "step": 10, "seconds": 0.1, "bytes": 5, "path": "checkpoints/step-10"},
    {**START, "event": "resume", "time": 9500.0, "step": 10, "warnings": ["the newest checkpoint was broken"]},
    step(20, 9510),
    step(30, 9518),
    {"event": "straggler", "time": 9519, "step": 30, "rank": 3, "node": "n2", "seconds": 1.0, "median_seconds": 0.4},
    step(40, 9526, slowest={"rank": 3, "node": "n2", "seconds": 0.75}),
    {"event": "checkpoint", "time": 9530, "step": 40, "seconds": 0.1, "bytes": 5, "path": "checkpoints/step-40"},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in its second start, at step 40 of 100."""
    folder = tmp_path / "run"
    folder.mkdir()
    write(folder, EVENTS)
    return folder


def write(folder: Path, events: list[dict[str, Any]]) -> None:
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def job(run: Path, number: int = 7, kind: str = "train", label: str = "train") -> SubmittedJob:
    return SubmittedJob(number, run, run / "submissions" / "train-0001.sbatch", KnownCluster("local"), kind, label, 8000.0)


def status(run: Path, *states: JobState, jobs: list[SubmittedJob] | None = None, now: float = NOW) -> RunStatus:
    """Of a run with job 7, of which Slurm says `states`; nothing at all where there are none."""
    return run_status(run, [job(run)] if jobs is None else jobs, {7: list(states)} if states else {}, now)


def test_speed_and_time_to_the_end_are_those_of_the_last_start() -> None:
    progress = read_progress(EVENTS)
    assert (progress.step, progress.total_steps, progress.starts) == (40, 100, 2)
    assert progress.clips_per_second == pytest.approx(64 / 0.5)
    assert progress.seconds_a_step == pytest.approx(16 / 20)  # the clock, not the steps' own time
    assert progress.seconds_to_end == pytest.approx(60 * 0.8)
    assert progress.slowest == {"rank": 3, "node": "n2", "seconds": 0.75}
    assert progress.last_checkpoint and progress.last_checkpoint["step"] == 40
    assert progress.warnings == ("the newest checkpoint was broken",)
    assert [slow["rank"] for slow in progress.stragglers] == [3]


def test_after_a_rollback_steps_are_counted_from_its_checkpoint() -> None:
    back = {"event": "rollback", "time": 9531, "step": 41, "to_step": 40, "reason": "the loss is nan", "skipped_batch": 41}
    progress = read_progress([*EVENTS, back])
    assert (progress.step, progress.seconds_to_end) == (40, None)
    assert "rolled back from step 41 to 40: the loss is nan" in progress.warnings
    assert read_progress([*EVENTS, back, step(50, 9600, 0.25)]).seconds_to_end == pytest.approx(50 * 0.25)


@pytest.mark.parametrize(
    ("slurm", "left", "more", "state", "words"),
    [
        (JobState("RUNNING", "None", None, nodes="n[1-2]"), None, [], "running", "on n[1-2]"),
        (JobState("PENDING", "Resources", None), None, [], "queued", "Resources"),
        (JobState("PENDING", "BeginTime", None, restarts=1), 75, [], "queued", "started again"),
        (JobState("COMPLETED", "None", 0), 0, [{"event": "end", "time": 9600, "step": 100}], "finished", "step 100"),
        (JobState("FAILED", "None", 75), 75, [{"event": "preemption", "time": 9600, "step": 40, "cause": "USR2"}],
         "stopped", "in good order (USR2)"),
        (JobState("FAILED", "None", 93), 93, [], "stopped", "no progress since its last start"),
        (JobState("CANCELLED", "None", 143), None, [], "cancelled", "submit it again"),
        (JobState("FAILED", "None", 1), 3, [], "failed", "exit code 3"),
        (JobState("TIMEOUT", "TimeLimit", 1), 75, [], "failed", "TIMEOUT, exit code 1"),
        (None, 1, [], "failed", "FORGOTTEN, exit code 1"),
        (None, None, [], "silent", "ended without telling why"),
    ],
)  # fmt: skip
def test_the_state_of_a_run(
    run: Path, slurm: JobState | None, left: int | None, more: list[dict[str, Any]], state: str, words: str
) -> None:
    write(run, [*EVENTS, *more])
    (run / "submissions").mkdir()
    if left is not None:
        (run / "submissions" / "job-7.exit_code").write_text(f"{left}\n")
    found = status(run, *([] if slurm is None else [slurm]))
    assert (found.state, found.active) == (state, state in ("running", "queued"))
    assert words in found.why


def test_a_run_without_slurm_is_running_while_it_gives_word(run: Path) -> None:
    assert status(run, jobs=[], now=9600).state == "running"
    assert status(run, jobs=[], now=20_000).state == "silent"
    record_failure(run, 2, 1, "a clip is cut short")
    failed = status(run, jobs=[], now=20_000)
    assert (failed.state, failed.causes[0].sentence) == ("failed", "a clip is cut short")
    write(run, [*EVENTS, {"event": "end", "time": 9600, "step": 100, "reason": "finished"}])
    assert status(run, jobs=[], now=9700).state == "finished"


def test_the_true_cause_comes_before_those_who_lost_their_peers(run: Path) -> None:
    record_failure(run, 0, 1, "lost its peers: connection reset")
    assert [cause.kind for cause in status(run, JobState("FAILED", "None", 1)).causes] == ["effect"]
    record_failure(run, 2, 3, "shard-00001.h5: damaged")
    record_failure(run, 1, 3, "shard-00001.h5: damaged")
    (run / "errors" / "rank-preflight.txt").write_text("exit_code: 1\ntoo few good nodes\n")
    (run / "errors" / "stacks-rank-2.txt").write_text("Thread ...")
    (run / "logs").mkdir()
    (run / "logs" / "rank-2.log").write_text("")
    causes = status(run, JobState("FAILED", "None", 1)).causes
    assert [(cause.who, cause.ranks, cause.exit_code) for cause in causes] == [("rank 2", 2, 3), ("preflight", 1, 1)]
    assert (causes[0].log, causes[0].stacks) == (run / "logs/rank-2.log", run / "errors/stacks-rank-2.txt")


def test_bad_nodes_are_those_of_the_newest_preflight(run: Path) -> None:
    for number, (job_id, names) in enumerate((("8", "n1\nn3\n"), ("7", "n4\n"))):
        folder = run / "preflight" / job_id
        folder.mkdir(parents=True)
        (folder / "bad_nodes").write_text(names)
        (folder / "table.txt").write_text("node  disk\nbad: n4: 3 of 4 GPUs are seen\n")
        os.utime(folder / "bad_nodes", (number, number))
    assert [(bad.node, bad.reason) for bad in status(run).bad_nodes] == [("n4", "3 of 4 GPUs are seen")]


def test_elements_of_an_array_have_lines_and_exit_codes_of_their_own(run: Path) -> None:
    (run / "submissions").mkdir()
    (run / "submissions" / "job-9.exit_code").write_text("75\n")
    ended = JobState("FAILED", "None", 1, number=9, element=1, elements="1")
    found = status(run, ended, JobState("PENDING", "JobArrayTaskLimit", None, number=7, element=2, elements="2-4%1"))
    assert [(line.number, line.exit_code) for line in found.jobs] == [("7_1", 75), ("7_[2-4%1]", None)]
    assert found.state == "queued"


def test_a_run_that_a_file_stops_says_which(run: Path) -> None:
    (run / "stop").touch()
    found = status(run, JobState("FAILED", "None", 93))
    assert (found.state, found.why) == ("stopped", f"as {run}/stop asks; delete that file and submit it again to go on")


def test_links_that_were_taken_from_the_queue_do_not_tell_how_the_run_ended(run: Path) -> None:
    stopped, taken = JobState("FAILED", "None", 75, nodes="n1"), JobState("CANCELLED", "None", 1)
    found = run_status(run, [job(run), job(run, 8)], {7: [stopped], 8: [taken]}, NOW)
    assert found.state == "stopped"
    cancelled = JobState("CANCELLED", "None", 143, nodes="n1")
    assert run_status(run, [job(run), job(run, 8)], {7: [stopped], 8: [cancelled]}, NOW).state == "cancelled"


def test_a_sweep_shows_each_of_its_runs(tmp_path: Path, run: Path) -> None:
    folder = tmp_path / "run-sweep"
    jobs = [job(run), job(tmp_path / "run-4x2", 8), job(folder, 9, "sweep", "report")]
    states = {7: [JobState("RUNNING", "None", None)], 8: [JobState("PENDING", "Resources", None)],
              9: [JobState("PENDING", "Dependency", None)]}  # fmt: skip
    found = run_status(folder, jobs, states, NOW)
    assert [(part.run.name, part.state) for part in found.parts] == [("run", "running"), ("run-4x2", "queued")]
    assert (found.state, len(found.jobs)) == ("running", 3)
    states[7] = states[8] = [JobState("COMPLETED", "None", 0, nodes="n1")]
    found = run_status(folder, jobs, states, NOW)
    assert (found.state, found.why) == ("queued", "job 9 (report) is PENDING (Dependency)")


def test_what_is_shown_and_what_json_holds_agree(run: Path) -> None:
    record_failure(run, 2, 3, "data [/bold] is *damaged*")  # what a name may hold is no markup
    found = status(run, JobState("FAILED", "NonZeroExitCode", 3))
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(status_view(found, NOW))
    text = console.export_text()
    for words in ("40 of 100 (40%)", "128.0 clips/s", "after step 40, 0:07:50 ago", "data [/bold] is *damaged*",
                  "rank 3 on n2, 0.750 s a step", "the newest checkpoint was broken", "restarts"):  # fmt: skip
        assert words in text, words
    values = json.loads(json.dumps(found.as_json()))
    assert (values["state"], values["progress"]["seconds_to_end"]) == ("failed", pytest.approx(48))
    assert values["causes"][0]["file"] == str(run / "errors" / "rank-2.txt")


def test_the_command_works_where_slurm_is_not(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note_job(run, job(run))
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = CliRunner().invoke(app, ["status", str(run), "--json"], catch_exceptions=False)
    values = json.loads(answer.stdout)
    assert values["jobs"][0]["state"] == "NOT ASKED" and "not on this machine" in values["warning"]
    with pytest.raises(InputError, match="no such folder"):
        CliRunner().invoke(app, ["status", str(tmp_path / "none")], catch_exceptions=False)
    with pytest.raises(InputError, match="no run is there"):
        CliRunner().invoke(app, ["status", str(tmp_path)], catch_exceptions=False)
    with pytest.raises(InputError, match="no job was submitted for it"):
        CliRunner().invoke(app, ["cancel", str(tmp_path)], catch_exceptions=False)


def test_submissions_of_before_and_half_lines_are_read(run: Path) -> None:
    (run / "submissions").mkdir()
    old = {"job_id": 3, "script": "shard-0001.sbatch", "site": "local", "time": 1.0}
    (run / "submissions" / "jobs.jsonl").write_text(json.dumps(old) + '\n{"job_id": 4, "scr')
    (found,) = recorded_jobs(run)
    assert (found.job_id, found.kind, found.run, found.cluster.slurm_conf) == (3, "shard", run, None)


def test_a_run_that_was_moved_keeps_its_jobs(run: Path) -> None:
    note_job(run, job(run))
    note_job(run, job(run.with_name("shard-set"), 8, "shard"))
    moved = run.rename(run.with_name("moved"))
    assert [found.run for found in recorded_jobs(moved)] == [moved, run.with_name("shard-set")]


def test_a_log_of_another_program_is_told_as_that(run: Path) -> None:
    (run / "events.jsonl").write_text('{"event": "step"}\n')
    with pytest.raises(InputError, match="not an event log"):
        status(run)
