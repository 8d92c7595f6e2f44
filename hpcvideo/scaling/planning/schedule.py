"""The schedule of one step of a plan, as a drawing."""

from __future__ import annotations

from hpcvideo.scaling.model.estimate import Values
from hpcvideo.scaling.model.job import Job
from hpcvideo.scaling.model.schedule_boxes import Box
from hpcvideo.scaling.model.step import pipeline_run, step_parts
from hpcvideo.scaling.planning.timeline import Timeline, pipeline_timeline, timeline_svg
from hpcvideo.scaling.report.number_text import counted, duration


def schedule_svg(job: Job, values: Values) -> str:
    """One step at these values: a pipeline's stages, or what a rank of data parallel training does one after the other."""
    title = f"{job.config.name} on {counted(job.nodes, 'node')}, {counted(job.ranks, 'rank')}"
    if job.stages > 1:
        return timeline_svg(pipeline_timeline(pipeline_run(job, values), title))
    step = step_parts(job, values)
    times, now = job.accumulation, 0.0
    boxes = []

    def add(kind: str, seconds: float, label: str) -> None:
        nonlocal now
        if seconds > 0:
            boxes.append(Box(0, kind, now, now + seconds, label))
        now += seconds

    add("wait", step.data_wait, "data")
    for micro in range(times):
        add("load", step.to_device / times, str(micro))
        add("forward", step.forward / times, str(micro))
        add("backward", step.backward / times, str(micro))
    add("wait", step.stragglers, "slowest rank")
    add("exchange", step.communication_exposed, "")
    add("optimizer", step.optimizer, "")
    add("wait", step.other, "other")
    batches = "1 micro-batch" if times == 1 else f"{times} micro-batches"
    subtitle = f"{batches} of {job.micro_batch} clips: {duration(now)} a step"
    return timeline_svg(Timeline(title, subtitle, ("a rank",), ("",), tuple(boxes), now))
