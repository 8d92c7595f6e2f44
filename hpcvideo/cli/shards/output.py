"""What the shard commands print while they work: a bar, warnings, numbers with their nouns."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hpcvideo.shards.ranks import INTERRUPTED_EXIT_CODE
from hpcvideo.shards.tools.copy_set import CopyResult

LISTED_AT_MOST = 20
_SECONDS_BETWEEN_LINES = 30


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal's error stream; in a job's log, and under mpiexec, a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _progress_lines(unit, console)
        return
    columns = TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    bar = Progress(*columns, console=console)
    task = bar.add_task(unit, total=None)
    with bar:
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _progress_lines(unit: str, console: Console) -> Callable[[int, int], None]:
    printed = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed >= _SECONDS_BETWEEN_LINES:
            printed = time.monotonic()
            console.print(f"{done} of {total} {unit}", highlight=False)

    return show


def warn(sentence: str) -> None:
    """Print a warning on the error stream."""
    Console(stderr=True, highlight=False).print(f"[yellow]warning:[/] {escape(sentence)}", soft_wrap=True)


def count(number: int, thing: str, things: str = "") -> str:
    """"1 shard", "2 shards"; `things` where the plural does not just take an s."""
    return f"{number} {thing if number == 1 else things or thing + 's'}"


@contextmanager
def ends_at_interrupt(what_now: str) -> Iterator[None]:
    """Ctrl-C ends the command with 130 and one sentence, not a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"hpcvideo: interrupted; {what_now}", err=True)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None


def show_copies(results: Sequence[CopyResult], as_json: bool) -> None:
    """What a command that writes new sets of old ones ends with, on rank 0."""
    if results[0].rank:
        return
    if as_json:
        outcomes = [{**asdict(result), "folder": str(result.folder)} for result in results]
        for outcome in outcomes:
            outcome.pop("rank")
        typer.echo(json.dumps(outcomes[0] if len(outcomes) == 1 else outcomes, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for result in results:
        if result.damaged_shards:
            console.print(f"{count(result.damaged_shards, 'damaged shard')} written anew")
        kept = f" ({result.kept_shards} kept from an earlier run)" if result.kept_shards else ""
        left_out = f"; {result.quarantined} still listed as left out" if result.quarantined else ""
        console.print(
            f"{count(result.videos, 'video')}, {count(result.frames, 'frame')}, {result.bytes / 1e6:.1f} MB in "
            f"{count(result.shards, 'shard')}{kept}{left_out}: {escape(str(result.folder))}",
            soft_wrap=True,
        )
