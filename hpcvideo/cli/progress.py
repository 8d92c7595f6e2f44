"""What people see while a run goes on: a bar on a terminal, lines in a log, JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import groupby
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

_SHOWN = (
    ("world_size", "ranks"),
    ("nodes", "nodes"),
    ("global_batch", "global batch (clips)"),
    ("micro_batch", "micro batch (clips)"),
    ("accumulation", "accumulation"),
    ("train_samples", "training videos"),
    ("steps_per_epoch", "steps an epoch"),
    ("total_steps", "updates in all"),
    ("warmup_steps", "warm-up updates"),
    ("learning_rate_law", "learning rate"),
    ("peak_learning_rate", "peak learning rate"),
    ("optimizer", "optimizer"),
    ("ema_decay", "averaged weights, decay"),
    ("precision", "precision"),
    ("batch_norm_span", "one BatchNorm statistic sees"),
    ("fragments", "fragments of a clip (new frames)"),
    ("devices", "device"),
    ("checkpoints", "checkpoints"),
    ("startup_seconds", "start-up (s)"),
)

FILE_WIDTH = 120
"""Columns of tables in a file or a pipe, which has no width that lines would have to keep to."""


def values_table(values: dict[str, Any]) -> Table:
    """The effective values of a run as a table of two columns; keys that are absent or None are left out."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, title in _SHOWN:
        if values.get(key) is not None:
            table.add_row(title, _words(key, values[key]))
    return table


def _words(key: str, value: Any) -> str:
    if key == "batch_norm_span":
        return f"{value['clips']} clips, {value['images']} images" if value["clips"] else "no batch: none is live"
    if key == "fragments":
        return "; in turn ".join(f"{len(one)}: {_lengths(one)}" for one in value)
    if key == "optimizer":
        return ", ".join([value["name"], *(f"{name} {option}" for name, option in value.items() if name != "name")])
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _lengths(numbers: list[int]) -> str:
    """16, 15, 15, 15, 7 as "16, 3 x 15, 7"."""
    runs = [(number, len(list(same))) for number, same in groupby(numbers)]
    return ", ".join(f"{count} x {number}" if count > 1 else str(number) for number, count in runs)


def _console(file: TextIO) -> Console:
    console = Console(file=file)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    return console


def show_effective_values(values: dict[str, Any], file: TextIO) -> None:
    """Print the table and the warnings."""
    console = _console(file)
    console.print(values_table(values))
    for line in warning_lines(values):
        console.print(line, highlight=False, soft_wrap=True)


def warning_lines(values: dict[str, Any]) -> list[str]:
    """A line for each of the effective values' warnings."""
    return [f"warning: {warning}" for warning in values.get("warnings", ())]


def bar(console: Console) -> Progress:
    """The progress bar of every long command."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(), console=console, transient=False,
    )  # fmt: skip


@contextmanager
def training_listener(as_json: bool, rank: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A listener for hpcvideo.training.train.train; ranks other than 0 hear nothing."""
    console = _console(sys.stderr)
    if as_json or rank != 0:
        yield lambda event: _print_json(event, console)
        return
    progress = bar(console) if console.is_terminal else None
    task = progress.add_task("train", total=None) if progress else None

    def listen(event: dict[str, Any]) -> None:
        if progress and task is not None and "total_steps" in event:
            description = f"train, loss {event['loss']:.3f}" if "loss" in event else "train"
            progress.update(task, completed=event["step"], total=event["total_steps"], description=description)
        elif progress and task is not None and "doing" in event:
            progress.update(task, description=f"{event['doing']} {event['done']}/{event['of']}")
        if event["event"] in ("start", "resume"):
            console.print(values_table(event))
            if "stages" in event:
                console.print(_stages(event), highlight=False, soft_wrap=True)
            if event["steps_per_epoch"] < 1:
                console.print("note: the global batch is larger than the data set, so it holds videos more than once")
            _print_warnings(event, console)
        if line := _line(event):
            console.print(line, highlight=False, soft_wrap=True)

    with progress or nullcontext():
        yield listen


def _print_json(event: dict[str, Any], console: Console) -> None:
    if event["event"] != "progress":
        print(json.dumps(event), flush=True)
    _print_warnings(event, console)


def _print_warnings(event: dict[str, Any], console: Console) -> None:
    for line in warning_lines(event):
        console.print(line, highlight=False, soft_wrap=True)


def _stages(event: dict[str, Any]) -> str:
    """Who computes what, in a line."""
    from hpcvideo.methods.pipeline.plan import layers_in_words
    from hpcvideo.scaling.report.number_text import counted

    by_unit = event.get("gradients_per_clip")  # of units, which all work at once and lie on any stage; in their order
    order = list(by_unit or (layer for layers in event["stages"] for layer in layers))
    idle = f"no gradient in {event['bubble']:.0%} of a clip's steps" if by_unit else f"bubble {event['bubble']:.0%}"
    stages = " | ".join(layers_in_words(event["stages"], order))
    return f"stages: {stages}; {counted(event['replicas'], 'replica')}, balance {event['balance']:.0%}, {idle}"


def _line(event: dict[str, Any]) -> str:
    kind = event["event"]
    if kind == "step":
        rate = event["samples"] / event["step"] / event["seconds"]["step"]["max"]
        line = (
            f"step {event['step']:>6}  epoch {event['epoch']:7.2f}  loss {event['loss']:.4f}  lr {event['lr']:.4g}  "
            f"{rate:.1f} clips/s"
        )
        if "latency" in event:
            update = event["latency"]["update"]
            line += f"  updated {update['median'] * 1e3:.0f} ms after a frame came (95 %: {update['p95'] * 1e3:.0f} ms)"
        return line
    if kind == "evaluation":
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in event["metrics"].items())
        left_out = f", {event['left_out']} damaged ones left out" if event.get("left_out") else ""
        weights = ", averaged weights" if event.get("weights") == "averaged" else ""
        scored = f"{event['clips']} videos{left_out}, {event['protocol']}{weights}"
        return f"evaluation after step {event['step']}: {metrics}  ({scored})"
    if kind == "statistics":
        return (
            f"BatchNorm measured after step {event['step']} on {event['micro_batches']} micro-batches a rank "
            f"({event['clips']} clips) in {event['seconds']:.1f} s"
        )
    if kind == "checkpoint":
        written = f", written in {event['write_seconds']:.2f} s beside it" if "write_seconds" in event else ""
        following = f", the next one after step {event['interval']['next_step']}" if "interval" in event else ""
        size = f"{event['bytes'] / 1e6:.1f} MB"
        return f"checkpoint {event['path']}  {size}, training waited {event['seconds']:.3f} s{written}{following}"
    if kind == "warning":
        return f"warning: {event['sentence']}"
    if kind == "end":
        return f"{event['reason']} after step {event['step']}, {event['seconds']:.1f} s since this start"
    if kind == "init":
        return f"first weights of {event['path']}: {event['loaded']}"
    if kind == "bad_clip":
        return f"skipped a {event['set']} clip: {event['reason']}"
    if kind == "preemption":
        return f"asked to stop ({event['cause']}): all is saved after step {event['step']}"
    if kind == "rollback":
        return (
            f"warning: step {event['skipped_batch']}: {event['reason']}; back from step {event['step']} to step "
            f"{event['to_step']}, and on without that batch"
        )
    if kind == "straggler":
        return (
            f"warning: rank {event['rank']} on {event['node']} works {event['seconds']:.3g} s a step, the others "
            f"{event['median_seconds']:.3g} s"
        )
    if kind == "resume":
        return f"resumed after step {event['step']}"
    return ""


@contextmanager
def task_progress(what: str, total: int) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal for `total` things; told how many are done, parts of one too."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done: None
        return
    with bar(console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
