"""The side of a contestant: batches are drawn on request, and timed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Run = Callable[[float, int], tuple[int, float]]
"""(seconds, batches) at least -> (clips, seconds)."""


def config() -> dict[str, Any]:
    """The arguments, one JSON object."""
    facts: dict[str, Any] = json.loads(sys.argv[1])
    return facts


def serve(run: Run, facts: dict[str, Any] | None = None) -> None:
    """Say that all is ready, then answer requests, one JSON line each, until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    print(json.dumps(facts or {}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        clips, seconds = run(request["seconds"], request["batches"])
        print(json.dumps({"clips": clips, "seconds": seconds}), file=answers, flush=True)


def timed(batches: Iterator[int], ahead: int) -> Run:
    """Time the drawing of batches; each item of `batches` is the number of clips of one.

    The first `ahead` batches of a turn are not counted: they may have been made before it, as those that lie ready at its
    end were made within it.
    """
    for _ in range(ahead + 1):
        next(batches)  # workers are up, files are in the page cache

    def run(seconds: float, least: int) -> tuple[int, float]:
        for _ in range(ahead):
            next(batches)
        begin = time.perf_counter()
        clips = count = 0
        while count < least or time.perf_counter() - begin < seconds:
            clips += next(batches)
            count += 1
        return clips, time.perf_counter() - begin

    return run
