"""One step of all ranks in the Trace Event Format, which chrome://tracing and ui.perfetto.dev open.

A process is a node of a run, a thread is a rank. Each rank's clock is set to rank 0's of its run, and each run begins at 0.
Format: "Trace Event Format", Google, 2016 (JSON Object Format, complete events `X`, metadata events `M`, microseconds).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hpcvideo.runs.step_trace import StepTrace


def chrome_trace(traces: Mapping[str, StepTrace]) -> str:
    """The file's text for run name -> trace of one of its steps."""
    events: list[dict[str, Any]] = []
    errors: dict[str, float] = {}
    process = 0
    for name, trace in traces.items():
        origin = min(rank.begin - rank.clock_offset for rank in trace.ranks)
        nodes: dict[str, int] = {}
        for rank in trace.ranks:
            if rank.node not in nodes:
                process += 1
                nodes[rank.node] = process
                title = f"{name}, step {trace.step}, {rank.node}"
                events.append(_named("process_name", process, 0, name=title))
                events.append(_named("process_sort_index", process, 0, sort_index=process))
            place = {"pid": nodes[rank.node], "tid": rank.rank}
            events.append(_named("thread_name", **place, name=f"rank {rank.rank}"))
            events.append(_named("thread_sort_index", **place, sort_index=rank.rank))
            whole = ("step", rank.begin, rank.end)
            for phase, begin, end in (whole, *rank.spans):
                events.append(
                    {
                        "name": f"step {trace.step}" if phase == "step" else phase,
                        "cat": "step" if phase == "step" else "phase",
                        "ph": "X",
                        "ts": round(1e6 * (begin - rank.clock_offset - origin), 3),
                        "dur": round(1e6 * (end - begin), 3),
                        **place,
                    }
                )
        errors[name] = max(rank.clock_error for rank in trace.ranks)
    other = {"clock_error_seconds": errors, "clock": "rank 0's of each run"}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}) + "\n"


def _named(kind: str, pid: int, tid: int, **arguments: Any) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": arguments}
