"""How fast a training step is: TSM beside its 3D twins, TSN and a plain TSM; data parallel beside DDP; in a pipeline.

    python benchmarks/train_step.py [--quick] [--json FILE] [--only CLAIM,...]

A step is forward, loss, backward, clipping and SGD on one batch; contestants take turns round by round: see
docs/benchmarks.md.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from command_line import claims_parser, parse_claims, timed_teller
from report import Claim, machine, show
from step_claims import Bench, bf16_claim, inflated_claims, machine_arithmetic, plain_claim, tsn_claim
from training_steps import alone

SINGLE = ("tsm_over_i3d_3x1x1", "tsm_over_i3d_3x3x3", "tsm_over_tsn", "over_plain_fp32", "over_plain_bf16")
CLAIMS = (*SINGLE, "deepspeed_over_ddp", "exposed_communication_over_ddp", "pipeline_2_over_1")
_PACKAGES = ("hpcvideo", "torch", "deepspeed", "numpy")


def measure(wanted: set[str], quick: bool, cores: list[int], tell: Callable[[str], None]) -> list[Claim]:
    """All claims that are wanted, in the order of CLAIMS."""
    claims: list[Claim] = []
    # The claims on several processes come first: they are to find this process's threads asleep.
    if "pipeline_2_over_1" in wanted:
        from pipeline_step import pipeline_claim

        smaller = {"micro_batches": 8, "size": 64} if quick else {}
        claims.append(pipeline_claim(tell, len(cores), 3 if quick else 7, **smaller))
    if wanted & set(CLAIMS[5:7]):
        from data_parallel_step import deepspeed_claim, exposed_claim

        makers = {"deepspeed_over_ddp": deepspeed_claim, "exposed_communication_over_ddp": exposed_claim}
        claims += [make(quick, tell) for name, make in makers.items() if name in wanted]
    if wanted & set(SINGLE):
        with alone() as rank:
            bench = Bench.of(quick, cores, rank, tell)
            if wanted & {"tsm_over_i3d_3x1x1", "tsm_over_i3d_3x3x3"}:
                claims += [claim for claim in inflated_claims(bench) if claim.name in wanted]
            if "tsm_over_tsn" in wanted:
                claims.append(tsn_claim(bench))
            if "over_plain_fp32" in wanted:
                claims.append(plain_claim(bench))
            if "over_plain_bf16" in wanted:
                claims.append(bf16_claim(bench))
    return sorted(claims, key=lambda claim: CLAIMS.index(claim.name))


def main() -> None:
    quick = "smaller pictures and 3 rounds: a look, not a measurement"
    options = parse_claims(claims_parser(__doc__, CLAIMS, quick), CLAIMS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # contestants are ended then too
    begin = time.monotonic()
    tell = timed_teller()
    cores = sorted(os.sched_getaffinity(0))
    environment = machine(_PACKAGES, cores) | {"arithmetic": machine_arithmetic()}
    claims = measure(options.wanted, options.quick, cores, tell)
    show(claims, environment, time.monotonic() - begin, options.json)


if __name__ == "__main__":
    main()
