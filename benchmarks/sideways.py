"""Sideways and Skip-Sideways: speed and memory on ranks, and what they learn beside back-propagation.

    python benchmarks/sideways.py [--quick] [--json FILE] [--only CLAIM,...]

Speed: two ranks beside one, and a stream of frames beside back-propagation in a pipeline. Memory: clips of 8, 64 and 512
frames. What is learnt: temporal laws (sideways_laws.py) and future frames (sideways_frames.py), worst of 3 seeds shown.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from command_line import claims_parser, parse_claims, timed_teller
from report import Claim, machine, show
from rich.console import Console
from rich.table import Table

SPEED = ("ranks_2_over_1", "frames_over_blocking_bp", "memory_512_over_8_frames")
LEARNT = {"laws": "sideways_laws", "frames": "sideways_frames"}
"""Modules whose `claims(quick, tell)` train; all claims of one come together."""
PARTS = (*SPEED, *LEARNT)
_PACKAGES = ("hpcvideo", "torch", "deepspeed", "numpy")


def measure(wanted: set[str], quick: bool, cores: int, tell: Callable[[str], None]) -> list[Claim]:
    """The claims of all parts that are wanted, in the order of PARTS."""
    claims: list[Claim] = []
    if "ranks_2_over_1" in wanted:
        from sideways_speed import ranks_claim

        claims.append(ranks_claim(tell, cores, quick))
    if "frames_over_blocking_bp" in wanted:
        from sideways_speed import stream_claim

        claims.append(stream_claim(tell, cores, quick))
    if "memory_512_over_8_frames" in wanted:
        from sideways_memory import memory_claim

        claims.append(memory_claim(tell))
    for part, module in LEARNT.items():
        if part in wanted:
            claims += importlib.import_module(module).claims(quick, tell)
    return claims


def scheme_table(rows: list[dict[str, Any]]) -> Table:
    """The rows of frames_over_blocking_bp for a terminal. What one device a unit would take has no times."""
    table = Table("scheme", "frames/s", "latency, mean", "largest", "updates a clip", "slots a clip*", "frames held*")
    for row in rows:
        cells = [
            f"{row[key]:.3g}{unit}" if row.get(key) is not None else ""
            for key, unit in (("frames_a_second", ""), ("latency_mean_seconds", " s"), ("latency_largest_seconds", " s"))
        ]
        counts = [str(row.get(key, "")) for key in ("updates_a_clip", "slots_a_clip", "frames_held")]
        table.add_row(row["scheme"], *cells, *counts)
    table.caption = "* on one device a unit; slot: a unit's forward and backward; frames held by the first unit"
    return table


def main() -> None:
    options = parse_claims(claims_parser(__doc__, PARTS, "smaller pictures, fewer rounds and steps: a look", "PART"), PARTS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # contestants are ended then too
    begin = time.monotonic()
    tell = timed_teller()
    cores = sorted(os.sched_getaffinity(0))
    environment = machine(_PACKAGES, cores)
    claims = measure(options.wanted, options.quick, len(cores), tell)
    show(claims, environment, time.monotonic() - begin, options.json)
    for claim in claims:
        if options.json is None and "table" in claim.details:
            Console().print(scheme_table(claim.details["table"]))


if __name__ == "__main__":
    main()
