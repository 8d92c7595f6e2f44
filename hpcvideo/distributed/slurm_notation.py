"""What can be read from Slurm's own notation: node lists, tasks per node, and ports that follow from a job's number."""

from __future__ import annotations

FIRST_JOB_PORT = 20000
JOB_PORTS = 10000  # 20000..29999 lies below Linux's ephemeral range (32768..60999): no client socket takes it by chance
MOST_PORTS = 16


def port_of_job(job_id: str) -> int:
    """A port outside the ephemeral range that differs between neighbouring jobs."""
    digits = "".join(character for character in job_id if character.isdigit()) or "0"
    return FIRST_JOB_PORT + int(digits) % JOB_PORTS


def ports_of_job(first: int) -> list[int]:
    """The ports at which rank 0 may be found, in the order in which all ranks try them: `first`, then others below the
    ephemeral range, far from those of neighbouring jobs."""
    others = [FIRST_JOB_PORT + (first + 617 * turn) % JOB_PORTS for turn in range(1, MOST_PORTS)]
    return [first, *others]


def expand_task_counts(text: str) -> list[int]:
    """Slurm's tasks per node, `2(x3),1` -> [2, 2, 2, 1]; an empty text gives an empty list."""
    counts: list[int] = []
    for part in filter(None, text.split(",")):
        count, _, repeat = part.partition("(x")
        counts += [int(count)] * (int(repeat.rstrip(")")) if repeat else 1)
    return counts


def first_host(nodelist: str) -> str:
    """The first name of a Slurm node list: `node[007-009,12],b1` -> `node007`."""
    head, bracket, rest = nodelist.partition("[")
    if not bracket or "," in head:
        return nodelist.split(",")[0]
    first = rest.partition("]")[0].split(",")[0].split("-")[0]
    return head + first + rest.partition("]")[2].split(",")[0]
