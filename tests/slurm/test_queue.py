"""What is read from Slurm's answers; the texts are those of a Slurm 22.05."""

from __future__ import annotations

from hpcvideo.slurm.queue import last_to_run, parse_job_state, parse_job_states

WAITING_ELEMENTS = """JobId=21791 ArrayJobId=21791 ArrayTaskId=2-3%1 ArrayTaskThrottle=1 JobName=JobState=COMPLETED
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   JobState=PENDING Reason=JobArrayTaskLimit Dependency=afterok:21790(unfulfilled)
   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0
   RunTime=00:00:00 TimeLimit=UNLIMITED TimeMin=N/A
   StartTime=Unknown EndTime=Unknown Deadline=N/A
   ReqNodeList=(null) ExcNodeList=(null)
   NodeList=
   NumNodes=1 NumCPUs=1 NumTasks=1 CPUs/Task=1 ReqB:S:C:T=0:0:*:*
"""
RUNNING_ELEMENT = """JobId=21795 ArrayJobId=21791 ArrayTaskId=1 ArrayTaskThrottle=1 JobName=s.sh
   JobState=RUNNING Reason=None Dependency=(null)
   Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:0
   RunTime=1-00:00:01 TimeLimit=1-00:10:00 TimeMin=N/A
   StartTime=2026-11-22T09:54:54 EndTime=2026-11-23T10:04:54 Deadline=N/A
   ReqNodeList=(null) ExcNodeList=(null)
   NodeList=n[1-2]
   BatchHost=n1
"""
ENDED = """JobId=7 JobName=x
   JobState={state} Reason=NonZeroExitCode Dependency=(null)
   Requeue=0 Restarts=0 BatchFlag=1 Reboot=0 ExitCode={code}
"""


def test_an_array_is_read_element_by_element() -> None:
    running, waiting = parse_job_states(f"{WAITING_ELEMENTS}\n{RUNNING_ELEMENT}\n")
    assert (waiting.state, waiting.number, waiting.element, waiting.elements) == ("PENDING", 21791, 2, "2-3%1")
    assert (waiting.reason, waiting.dependency) == ("JobArrayTaskLimit", "afterok:21790(unfulfilled)")
    assert (waiting.nodes, waiting.start, waiting.time_left_seconds, waiting.active) == ("", "", None, True)
    assert (running.state, running.number, running.elements, running.restarts) == ("RUNNING", 21795, "1", 2)
    assert (running.nodes, running.start, running.time_left_seconds) == ("n[1-2]", "2026-11-22T09:54:54", 599)


def test_the_cancelled_rest_of_an_array_is_no_element_and_does_not_tell_how_it_ended() -> None:
    rest = WAITING_ELEMENTS.replace("ArrayTaskId=2-3%1", "ArrayTaskId=4294967294").replace("PENDING", "CANCELLED")
    assert [state.elements for state in parse_job_states(rest + RUNNING_ELEMENT)] == ["1"]
    waiting = parse_job_states(WAITING_ELEMENTS.replace("PENDING", "CANCELLED") + RUNNING_ELEMENT)
    assert last_to_run(waiting).elements == "1"


def test_only_a_completed_job_counts_as_a_success() -> None:
    ends = {
        ("COMPLETED", "0:0"): 0, ("FAILED", "75:0"): 75, ("CANCELLED", "0:15"): 143, ("TIMEOUT", "0:0"): 1,
        ("NODE_FAIL", "0:0"): 1,
    }  # fmt: skip
    for (state, code), expected in ends.items():
        found = parse_job_state(ENDED.format(state=state, code=code))
        assert (found.state, found.exit_code, found.active) == (state, expected, False)
    assert parse_job_state(ENDED.format(state="COMPLETING", code="0:0")).active


def test_an_answer_of_no_job_is_an_unknown_state_that_may_still_run() -> None:
    assert parse_job_states("") == []
    assert parse_job_state("slurm_load_jobs: later").state == "UNKNOWN"
