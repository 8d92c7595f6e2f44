"""What progressive training (PGT) costs and what carried state is good for.

    python benchmarks/progressive.py [--quick] [--json FILE] [--only CLAIM,...]

Memory by the number of fragments; time a frame beside plain clip training; a task that no fragment solves alone, the
order of two events, with carried state and without; and directions of motion, which short clips tell, too, beside clip
training: see docs/progressive.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
from command_line import claims_parser, parse_claims, timed_teller
from event_order import order_claims
from motion_lengths import motion_claim
from progressive_costs import memory_claim, time_claims
from report import Claim, machine, show
from training_steps import alone

CLAIMS = (
    "memory_20_over_1_fragments", "time_published_over_clip", "time_lean_over_clip", "order_accuracy",
    "order_stateless_minus_chance", "motion_long_minus_clip",
)  # fmt: skip


def measure(wanted: set[str], quick: bool, tell: Callable[[str], None]) -> list[Claim]:
    """All claims that are wanted, in the order of CLAIMS."""
    claims: list[Claim] = []
    with alone() as rank:
        torch.set_num_threads(1)
        if "memory_20_over_1_fragments" in wanted:
            claims.append(memory_claim(rank, quick, tell))
        if wanted & {"time_published_over_clip", "time_lean_over_clip"}:
            claims += time_claims(rank, quick, tell)
        if wanted & {"order_accuracy", "order_stateless_minus_chance"}:
            claims += order_claims(rank, quick, tell)
        if "motion_long_minus_clip" in wanted:
            claims.append(motion_claim(rank, quick, tell))
    return sorted((claim for claim in claims if claim.name in wanted), key=lambda claim: CLAIMS.index(claim.name))


def main() -> None:
    quick = "smaller pictures and shorter training: a look, no measurement"
    options = parse_claims(claims_parser(__doc__, CLAIMS, quick), CLAIMS)
    begin = time.monotonic()
    tell = timed_teller()
    environment = machine(("hpcvideo", "torch", "numpy"), sorted(os.sched_getaffinity(0)))
    claims = measure(options.wanted, options.quick, tell)
    show(claims, environment, time.monotonic() - begin, options.json)


if __name__ == "__main__":
    main()
