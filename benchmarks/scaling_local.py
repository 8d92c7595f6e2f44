"""How far off the cost model is: training on 2 and 3 hosts, predicted from 1 host and a probe of the link.

    python benchmarks/scaling_local.py [--quick] [--json FILE] [--keep FILE] [--again FILE]

Hosts are network namespaces of this machine with 0.6 of a core each and links of several rates; see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from command_line import timed_teller
from rank_processes import RanksFailed
from report import Claim, machine, show
from scaling_prediction import Case, cases_of
from scaling_sweep import FULL, HOSTS, METHODS, QUICK, SHARE, HostsError, Plan, Told, measure

CLAIMS = {"step_time_mean_error": "<= 10", "step_time_max_error": "<= 20", "pipeline_mean_error": "<= 10"}
_PACKAGES = ("hpcvideo", "torch", "deepspeed", "numpy")
_PEER = "what is measured on 2 and 3 hosts"


def claims_of(cases: Sequence[Case], plan: Plan) -> list[Claim]:
    """The three claims."""
    by_method = {
        method: [100 * abs(case.error) for case in cases if case.method == method] for method in METHODS
    }
    largest = max(max(errors) for errors in by_method.values())
    values = fmean(by_method["end_to_end"]), largest, fmean(by_method["pipeline"])
    steps = min(case.steps for case in cases)
    how = (
        f"{plan.work['model']}, clips of {plan.work['frames']} x {plan.work['size']} px, fp32, on {HOSTS[0]} and "
        f"{HOSTS[1]} hosts (network namespaces with {SHARE} of a core each) at {', '.join(map(str, plan.rates))} Mbit/s: "
        f"|predicted / measured - 1| of a step, measured as the median of {steps}; calibrated on 1 host, "
        "the link by a ping and a bandwidth probe from point to point"
    )
    of = ("data parallel, mean over rates and hosts", "all cases, pipelines too", "pipelines, mean over rates and stages")
    return [
        Claim(name, value, "%", bound, _PEER, f"{what}; {how}", {"cases": [case.as_json() for case in cases]})
        for (name, bound), value, what in zip(CLAIMS.items(), values, of, strict=True)
    ]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller pictures, two rates, one round: a look")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there instead of printing a table")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write all that was measured there")
    parser.add_argument("--again", type=Path, metavar="FILE", help="measure nothing: predict again what --keep wrote there")
    return parser.parse_args()


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # hosts are taken down then too
    begin = time.monotonic()
    tell = timed_teller()
    plan = QUICK if options.quick else FULL
    environment = machine(_PACKAGES, sorted(os.sched_getaffinity(0)))
    try:
        told = Told(**json.loads(options.again.read_text())) if options.again else measure(plan, tell)
        if options.keep:
            options.keep.write_text(json.dumps(asdict(told)) + "\n")
        cases = cases_of(plan, told)
        for case in cases:
            tell(str(case))
        claims = claims_of(cases, plan)
    except (HostsError, RanksFailed) as failure:
        claims = [Claim(name, None, "%", bound, _PEER, f"NOT MEASURED: {failure}") for name, bound in CLAIMS.items()]
    show(claims, environment, time.monotonic() - begin, options.json)


if __name__ == "__main__":
    main()
