"""What failures cost a run, and how often to save against them."""

from __future__ import annotations

import math

from hpcvideo.scaling.model.estimate import Values


def job_mtbf_seconds(nodes: int, values: Values) -> float:
    """Mean seconds between failures of a job: any of its nodes, which fail independently at a constant rate, ends it."""
    return 3600.0 * values["node_mtbf_hours"] / nodes


def checkpoint_seconds(size_bytes: float, writing_nodes: int, values: Values) -> float:
    """Seconds to write a checkpoint of so many bytes, in equal parts on `writing_nodes` nodes, to the parallel file system.

    A node writes there no faster than it reads (pfs_node_read), all together no faster than pfs_write.
    """
    return size_bytes / min(writing_nodes * values["pfs_node_read"], values["pfs_write"])


def young_interval(cost_seconds: float, mtbf_seconds: float) -> float:
    """Seconds of work between checkpoints by Young's rule, sqrt(2 cost mtbf) (CACM 17(9), 1974); good for cost << mtbf."""
    return math.sqrt(2 * cost_seconds * mtbf_seconds)


def expected_run_seconds(
    work_seconds: float,
    interval_seconds: float,
    stall_seconds: float,
    mtbf_seconds: float,
    restart_seconds: float,
    write_seconds: float = 0.0,
) -> float:
    """Expected wall-clock seconds of a run of `work_seconds`, with failures at exponential times (also while restarting).

    interval_seconds: of work between checkpoints. stall_seconds: for which training stands still at each. write_seconds:
    until a checkpoint, written beside training, is whole and a failure falls back to it and not to the one before.

    m e^(r/m) (e^((i + s)/m) - 1) work / i (Daly 2006, the complete model), with restarts r longer by
    write_seconds: so much more work is lost with each failure. Infinity where segments hardly ever end before a failure.
    """
    mtbf = mtbf_seconds
    segment = min(interval_seconds, work_seconds)
    try:
        growth = math.exp((restart_seconds + write_seconds) / mtbf) * math.expm1((segment + stall_seconds) / mtbf)
    except OverflowError:
        return math.inf
    return mtbf * growth * work_seconds / segment
