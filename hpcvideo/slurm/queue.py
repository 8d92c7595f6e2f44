"""What Slurm says of jobs, by scontrol and squeue alone: no accounting database is needed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpcvideo.errors import OperationFailed
from hpcvideo.slurm.commands import Cluster, ask

ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
}  # fmt: skip
_NO_ELEMENT = 0xFFFFFFFE
_NONE = {"", "(null)", "None", "N/A", "Unknown", "UNLIMITED"}


@dataclass(frozen=True)
class JobState:
    """What Slurm says of a job: `state` in its own words, `reason` where it waits; `exit_code` once it has ended.

    number: that of the job itself. element: its place in an array, -1 outside of one; `elements` as Slurm writes them: those
    that wait stand together in one answer, as in "2-4%1". `start` and `end` are Slurm's times, the end of a running job
    being its time limit; empty where Slurm does not know.
    """

    state: str
    reason: str
    exit_code: int | None
    number: int = 0
    element: int = -1
    elements: str = ""
    nodes: str = ""
    start: str = ""
    end: str = ""
    time_left_seconds: int | None = None
    restarts: int = 0
    dependency: str = ""

    @property
    def active(self) -> bool:
        """Whether it waits, runs or is about to leave."""
        return self.exit_code is None


def job_state(job_id: int, cluster: Cluster) -> JobState | None:
    """What `scontrol show job` says; None for a job that Slurm does not remember. Raises OperationFailed.

    Of an array: an element that has not ended yet, else the last one that had nodes.
    """
    states = job_states(job_id, cluster)
    if not states:
        return None
    return next((state for state in states if state.active), last_to_run(states))


def last_to_run(states: Sequence[JobState]) -> JobState:
    """Of a job's states (one, or those of an array's elements) the last that had nodes; the last where none had any."""
    return next((state for state in reversed(states) if state.nodes), states[-1])


def job_states(job_id: int, cluster: Cluster) -> list[JobState]:
    """The states of a job, by element where it is an array; empty where Slurm does not remember it."""
    try:
        text = ask(["scontrol", "show", "job", str(job_id)], cluster)
    except OperationFailed as error:
        if "Invalid job id" in str(error):
            return []
        raise
    return parse_job_states(text)


def remembered(job_ids: Iterable[int], cluster: Cluster) -> set[int]:
    """Those of the jobs that Slurm still knows, ended ones included, by one question for all of them."""
    wanted = sorted(set(job_ids))
    if not wanted:
        return set()
    numbers = ",".join(map(str, wanted))
    try:
        # %A is a job's own number, %F that of the array that it belongs to.
        text = ask(["squeue", "--noheader", "--states=all", "--format=%A %F", f"--jobs={numbers}"], cluster)
    except OperationFailed as error:
        if "Invalid job id" in str(error):
            return set()
        raise
    return {int(number) for number in text.split()} & set(wanted)


def parse_job_states(text: str) -> list[JobState]:
    """All jobs in the text of `scontrol show job`, by element."""
    records = re.split(r"^(?=JobId=)", text, flags=re.MULTILINE)
    states = sorted((parse_job_state(record) for record in records if record.strip()), key=lambda state: state.element)
    # What is left of an array's waiting part once that was cancelled is no element.
    return [state for state in states if state.element != _NO_ELEMENT] or states


def parse_job_state(text: str) -> JobState:
    """The state in the text that `scontrol show job` gives of one job.

    Slurm's `ExitCode=K:S` is the batch script's exit code and the signal that ended it. A job that did not complete never
    counts as 0: cancelled and timed-out jobs give 128 + signal, or 1.
    """
    # Names and paths in the text may hold "JobState=" too, but not at these places.
    found = re.search(r"^ +JobState=(\S+) Reason=(\S+)(?: Dependency=(\S+))?", text, re.MULTILINE)
    state, reason, dependency = found.groups() if found else ("UNKNOWN", "", "")
    who = re.search(r"^JobId=(\d+)(?: ArrayJobId=\d+ ArrayTaskId=((\d+)\S*))?", text, re.MULTILINE)
    times = re.search(r"^ +StartTime=(\S+) EndTime=(\S+)", text, re.MULTILINE)
    clock = re.search(r"^ +RunTime=(\S+) TimeLimit=(\S+)", text, re.MULTILINE)
    nodes = re.search(r"^ +NodeList=(\S+)", text, re.MULTILINE)
    counts = re.search(r"^ +Requeue=\d Restarts=(\d+)", text, re.MULTILINE)
    seconds_left = _seconds(clock[2]) - _seconds(clock[1]) if clock and clock[2] not in _NONE else None
    return JobState(
        state=state,
        reason=reason,
        exit_code=_exit_code(state, text) if state in ENDED else None,
        number=int(who[1]) if who else 0,
        element=int(who[3]) if who and who[3] else -1,
        elements=(who[2] or "") if who else "",
        nodes=_known(nodes[1]) if nodes else "",
        start=_known(times[1]) if times else "",
        end=_known(times[2]) if times else "",
        time_left_seconds=seconds_left if state == "RUNNING" else None,
        restarts=int(counts[1]) if counts else 0,
        dependency=_known(dependency or ""),
    )


def _exit_code(state: str, text: str) -> int:
    ended = re.search(r"^ +Requeue=\d.* ExitCode=(\d+):(\d+)", text, re.MULTILINE)
    code, number = (int(ended[1]), int(ended[2])) if ended else (0, 0)
    exit_code = code or (128 + number if number else 0)
    return exit_code or int(state != "COMPLETED")


def _known(text: str) -> str:
    return "" if text in _NONE else text


def _seconds(text: str) -> int:
    """Seconds of Slurm's [days-]hours:minutes:seconds, as scontrol prints times."""
    days, _, clock = text.rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(float(part))
    return int(days or 0) * 86400 + seconds
