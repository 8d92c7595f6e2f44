"""The claim that a pipeline of two stages on two cores outruns one process on one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from contestant import Contestant, ContestantFailed
from report import Claim
from rounds import take_turns

_SCRIPT = Path(__file__).parent / "step_contestants" / "pipeline.py"
_NAMES = {1: "1 process", 2: "2 stages"}
_BOUND = ">= 1.6"


def pipeline_claim(
    tell: Callable[[str], None], cores: int, rounds: int = 7, **changes: Any
) -> Claim:
    """pipeline_2_over_1. changes: of the contestants' configuration (see step_contestants/pipeline.py)."""
    facts = {
        "model": "tsm_resnet18", "options": {"channels_last": True, "dropout": 0.0}, "classes": 400, "frames": 8,
        "size": 112, "micro_batch": 1, "micro_batches": 16,
    } | changes  # fmt: skip
    how = (
        "clips/s of method pipeline, 2 stages with measured balance in 2 processes, over method end_to_end in 1 process, "
        f"one thread a process: {facts['model']}, {facts['micro_batches']} micro-batches of {facts['micro_batch']} clip of "
        f"{facts['frames']} x {facts['size']} px, forward, loss, backward, clipping, SGD"
    )
    if cores < 2:
        return Claim("pipeline_2_over_1", None, "x", _BOUND, "1 process", how + "; NOT MEASURED: only one core", {})
    with ExitStack() as stack:
        command = ["env", "OMP_NUM_THREADS=1", "DS_ACCELERATOR=cpu", "DS_LOG_LEVEL=warning", sys.executable, _SCRIPT]
        try:
            started = {
                name: stack.enter_context(Contestant(command, {**facts, "ranks": ranks})) for ranks, name in _NAMES.items()
            }
            turns = {name: (lambda one=one: one.rate(0, 1)) for name, one in started.items()}
            found = take_turns(turns, rounds, 2, tell)
        except ContestantFailed as error:
            return Claim("pipeline_2_over_1", None, "x", _BOUND, "1 process", f"{how}; NOT MEASURED: {error}", {})
    details = {**found.facts(), **{name: one.facts for name, one in started.items()}, "settings": facts}
    return Claim("pipeline_2_over_1", found.ratio("2 stages", "1 process"), "x", _BOUND, "1 process", how, details)
