"""Does training by sampled gradients keep its promises? Memory flat in the number of snippets, time by the model, mAP kept.

    python benchmarks/sampled_gradients.py [--quick] [--only memory,time,resident,maps] [--json FILE]

encoder_memory_512_over_32: what an iteration's passes through the encoder take with 512 snippets over what they take with
32, by what autograd keeps and by resident memory; the larger of the two ratios. memory_over_full: all that the process
gains in an iteration at ratio 0.3 over plain end-to-end with the same 128 snippets, which is measured with 8 to 32 of them
and extrapolated by a line. time_over_model: an iteration over N forwards and k forwards with backwards, both measured
beside it. resident_gigabytes_10_minutes: what the process gains since its imports in one iteration on a video of ten
minutes, by the full recipe's encoder R(2+1)D-34, 128 snippets of 16 x 112 x 112, with detector and AdamW. The maps are
trainings on synthetic untrimmed videos, see sampled_gradients_maps.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from command_line import timed_teller
from report import Claim, machine, show

from hpcvideo.distributed.environment import child_variables, without_launcher

_PACKAGES = ("torch", "deepspeed", "numpy")
_PARTS = ("memory", "time", "resident", "maps")
_PATIENCE_SECONDS = 3600
_SMALL = {"encoder": "r2plus1d_18", "width": 16, "frames": 8, "size": 56, "chunk": 4}
_FULL = {"encoder": "r2plus1d_34", "width": 64, "frames": 16, "size": 112, "chunk": 4, "snippets": 128, "frozen_stages": 2}
_GIVEN_BACK = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Lets glibc give freed memory back at once, so that resident memory is what is in use; by itself it keeps up to as much
again, which differs from run to run."""
Tell = Callable[[str], None]


def measured(case: dict[str, Any], **variables_too: str) -> dict[str, Any]:
    """What sampled_gradients_child.py answers, on one thread. Raises RuntimeError where it fails."""
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu", **variables_too))
    command = [sys.executable, str(Path(__file__).with_name("sampled_gradients_child.py")), json.dumps(case)]
    answer = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False)
    if answer.returncode:
        raise RuntimeError(answer.stderr[-2000:])
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def memory_claims(quick: bool, tell: Tell) -> list[Claim]:
    """encoder_memory_512_over_32 and memory_over_full."""
    sizes = (32, 64, 128) if quick else (32, 128, 512)
    case = {"measure": "memory", **_SMALL}
    sampled, kept = {}, {}
    for snippets in sizes:
        small = case | {"method": "sampled_gradients", "snippets": snippets}
        sampled[snippets], kept[snippets] = measured(small, **_GIVEN_BACK), measured(small)
        tell(f"{snippets} snippets, sampled: {_megabytes(sampled[snippets])}")
    plain = {}
    for snippets in (8, 16, 32):
        plain[snippets] = measured(case | {"method": "end_to_end", "snippets": snippets}, **_GIVEN_BACK)
        tell(f"{snippets} snippets, end to end: {_megabytes(plain[snippets])}")
    first, last = sampled[sizes[0]], sampled[sizes[-1]]
    ratios = {by: last[by] / first[by] for by in ("saved", "passes")}
    slope, intercept = np.polyfit(list(plain), [one["above_model"] for one in plain.values()], 1)
    whole = intercept + slope * 128
    told = {
        "sampled_megabytes": {snippets: _megabytes(one) for snippets, one in sampled.items()},
        "sampled_megabytes_with_glibc_as_it_is": {snippets: _megabytes(one) for snippets, one in kept.items()},
        "end_to_end_megabytes": {snippets: _megabytes(one) for snippets, one in plain.items()},
    }
    what = (
        "R(2+1)D-18 of width 16, snippets of 8 x 56 x 56, chunk 4, ratio 0.3, first iteration of one video, one thread, "
        "glibc told to give freed memory back at once"
    )
    flat = Claim(
        "encoder_memory_512_over_32", max(ratios.values()), "x", "<= 1.1", "itself with 32 snippets",
        f"{what}; {sizes[-1]} over {sizes[0]} snippets: what autograd keeps for backward {ratios['saved']:.3f}, resident "
        f"memory beyond pixels, features, gradients and optimizer state {ratios['passes']:.3f}",
        {"ratios": ratios, **told},
    )  # fmt: skip
    part = Claim(
        "memory_over_full", sampled[128]["above_model"] / whole, "x", "<= 0.25", "method end_to_end",
        f"{what}; all that the process gains beside the model with 128 snippets, pixels included, over what end_to_end "
        f"gains, {whole / 1e6:.0f} MB by a line through 8, 16 and 32 snippets",
        told,
    )  # fmt: skip
    return [flat, part]


def time_claim(quick: bool, tell: Tell) -> Claim:
    """time_over_model."""
    case = {"measure": "time", "method": "sampled_gradients", "snippets": 64, "rounds": 3 if quick else 7, **_SMALL}
    found = measured(case)
    for one in found["rounds"]:
        tell(", ".join(f"{name} {seconds:.3f} s" for name, seconds in one.items()))
    return Claim(
        "time_over_model", found["over_model"], "x", "<= 1.1", "N forwards + k forwards with backwards",
        f"seconds of an iteration ({found['sampled']} of 64 snippets sampled, decision, exchange, optimizer included) over "
        f"64 forwards and {found['sampled']} forwards with backwards measured before and behind it, median of "
        f"{len(found['rounds'])}; a backward takes {found['backward_over_forward']:.2f} forwards here; over (1 + 3r) "
        f"forwards it is {found['over_1_plus_3r']:.3f}",
        found,
    )  # fmt: skip


def resident_claim(quick: bool, tell: Tell) -> Claim:
    """resident_gigabytes_10_minutes; quick: 16 snippets in place of 128, for a look."""
    case = {"measure": "memory", "method": "sampled_gradients", "detector": True, "optimizer": "adamw", **_FULL}
    if quick:
        case["snippets"] = 16
    found = measured(case)
    tell(f"R(2+1)D-34: {_megabytes(found)}, {found['seconds']:.0f} s")
    return Claim(
        "resident_gigabytes_10_minutes", found["above_base"] / 1e9, "GB", "<= 2", "1.3 GB a video on a GPU, as published",
        f"peak resident memory above that after the imports: model, detector, AdamW, pixels and one whole iteration of ETAD "
        f"with R(2+1)D-34, {case['snippets']} snippets of 16 x 112 x 112 (of ten minutes, every 4.7 s one), ratio 0.3, "
        f"fp32, one thread, {found['seconds']:.0f} s",
        {"megabytes": _megabytes(found), "facts": found["facts"], "loss": found["loss"]},
    )  # fmt: skip


def _megabytes(found: dict[str, Any]) -> dict[str, float]:
    return {name: round(found[name] / 1e6, 1) for name in ("above_base", "above_model", "passes", "saved")}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: a look, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there instead of printing a table")
    parser.add_argument("--only", default=",".join(_PARTS), help=f"parts to measure ({', '.join(_PARTS)})")
    options = parser.parse_args()
    options.parts = options.only.split(",")
    if not set(options.parts) <= set(_PARTS):
        parser.error(f"--only {options.only}: known are {', '.join(_PARTS)}")
    return options


def main() -> None:
    options = parse()
    begin = time.monotonic()
    tell = timed_teller()
    environment = machine(_PACKAGES, sorted(os.sched_getaffinity(0)))
    claims: list[Claim] = []
    if "memory" in options.parts:
        claims += memory_claims(options.quick, tell)
    if "time" in options.parts:
        claims.append(time_claim(options.quick, tell))
    if "resident" in options.parts:
        claims.append(resident_claim(options.quick, tell))
    if "maps" in options.parts:
        from sampled_gradients_maps import claims as map_claims

        claims += map_claims(options.quick, tell)
    show(claims, environment, time.monotonic() - begin, options.json)


if __name__ == "__main__":
    main()
