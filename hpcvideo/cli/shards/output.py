"""What the shard commands print while they work: a bar, warnings, numbers with their nouns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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


def count(number: int, thing: str) -> str:
    """"1 shard", "2 shards"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
