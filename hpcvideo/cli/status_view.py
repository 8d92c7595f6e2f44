"""The status of a run as text for a terminal."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from hpcvideo.slurm.progress import RunProgress
    from hpcvideo.slurm.status import JobLine, RunStatus

MOST_WARNINGS = 8
MOST_ENDED_JOBS = 5
_COLOURS = {
    "running": "green", "finished": "green", "queued": "yellow", "stopped": "yellow", "failed": "red", "silent": "red",
}  # fmt: skip


def status_view(status: RunStatus, now: float, warning: str = "") -> RenderableType:
    """What `hpcvideo status` shows; now: Unix seconds, for ages."""
    facts = _facts(status, now)
    if warning:
        facts.add_row("note", escape(warning))
    parts: list[RenderableType] = [facts]
    if status.jobs:
        parts += [Text(), _jobs(status.jobs)]
    if status.parts:
        parts += [Text(), _scales(status.parts)]
    return Group(*parts)


def _facts(status: RunStatus, now: float) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("run", escape(str(status.run)))
    colour = _COLOURS.get(status.state, "bold")
    table.add_row("state", f"[{colour}]{status.state}[/]: {escape(status.why)}")
    if status.progress is not None:
        _add_progress(table, status.progress, status.state == "running", now)
    for node in status.bad_nodes:
        table.add_row("bad node", f"{escape(node.node)}: {escape(node.reason)}")
    for cause in status.causes:
        ranks = cause.who + (f" and {cause.ranks - 1} more" if cause.ranks > 1 else "")
        code = "" if cause.exit_code is None else f" (exit code {cause.exit_code})"
        table.add_row(cause.kind, f"{ranks}{code}: {escape(cause.sentence)}")
        places = [str(place) for place in (cause.file, cause.log, cause.stacks) if place is not None]
        table.add_row("", escape("see " + ", ".join(places)))
    return table


def _add_progress(table: Table, progress: RunProgress, running: bool, now: float) -> None:
    start = progress.last_start or {}
    total = progress.total_steps
    step = f"{progress.step}" + (f" of {total} ({progress.step / total:.0%})" if total else "")
    loss = "" if progress.loss is None else f", loss {progress.loss:.4f}"
    epoch = "" if progress.epoch is None else f", epoch {progress.epoch:.2f}"
    table.add_row("step", f"{step}{epoch}{loss}")
    if "world_size" in start:
        nodes = f"{start.get('nodes')} node" + ("s" if start.get("nodes") != 1 else "")
        table.add_row("ranks", f"{start['world_size']} on {nodes}, {start.get('global_batch')} clips a step")
    if progress.clips_per_second is not None:
        left = progress.seconds_to_end
        end = "" if left is None or not running else f"; {_duration(left)} to the end"
        table.add_row("speed", f"{progress.clips_per_second:,.1f} clips/s{end}")
    if progress.starts > 1:
        again = f"the last one after step {start.get('step')}, {_age(now, start['time'])}"
        table.add_row("restarts", f"{progress.starts - 1}, {again}")
    if saved := progress.last_checkpoint:
        table.add_row("checkpoint", f"after step {saved['step']}, {_age(now, saved['time'])}")
    elif progress.starts:
        table.add_row("checkpoint", "none yet")
    if scored := progress.last_evaluation:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in scored["metrics"].items())
        table.add_row("evaluation", f"after step {scored['step']}: {escape(metrics)}")
    if slow := progress.slowest:
        table.add_row("slowest", f"rank {slow['rank']} on {escape(str(slow['node']))}, {slow['seconds']:.3f} s a step")
    for slow in progress.stragglers:
        where = f"rank {slow['rank']} on {escape(str(slow['node']))}"
        table.add_row("straggler", f"{where}: {slow['seconds']:.3f} s a step, the median is {slow['median_seconds']:.3f} s")
    for sentence in progress.warnings[-MOST_WARNINGS:]:
        table.add_row("warning", escape(sentence))


def _jobs(jobs: tuple[JobLine, ...]) -> Table:
    """All jobs that wait or run, and the last that have ended."""
    table = Table(box=None, pad_edge=False)
    for heading in ("job", "what", "state", "reason", "nodes", "time left", "restarts", "exit code"):
        table.add_column(heading, no_wrap=heading != "reason")
    ended = [job for job in jobs if not job.active]
    shown = {id(job) for job in (*ended[-MOST_ENDED_JOBS:], *(job for job in jobs if job.active))}
    for job in jobs:
        if id(job) in shown:
            table.add_row(
                job.number,
                escape(job.label or job.kind),
                job.state,
                escape(job.reason or (f"starts {job.start}" if job.state == "PENDING" and job.start else "")),
                escape(job.nodes),
                "" if job.time_left_seconds is None else _duration(job.time_left_seconds),
                str(job.restarts or ""),
                "" if job.exit_code is None else str(job.exit_code),
            )
    if len(ended) > MOST_ENDED_JOBS:
        table.caption = f"and {len(ended) - MOST_ENDED_JOBS} earlier ones"
        table.caption_justify = "left"
    return table


def _scales(parts: tuple[RunStatus, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "state", "step", "clips/s", "to the end"):
        table.add_column(heading, overflow="fold" if heading == "run" else "ellipsis")
    for part in parts:
        progress = part.progress
        colour = _COLOURS.get(part.state, "bold")
        step = rate = left = ""
        if progress is not None:
            step = f"{progress.step} of {progress.total_steps}"
            rate = "" if progress.clips_per_second is None else f"{progress.clips_per_second:,.1f}"
            if part.state == "running" and progress.seconds_to_end is not None:
                left = _duration(progress.seconds_to_end)
        table.add_row(escape(str(part.run)), f"[{colour}]{part.state}[/]", step, rate, left)
    return table


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _age(now: float, then: float) -> str:
    return f"{_duration(max(0.0, now - then))} ago"
