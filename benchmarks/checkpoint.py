"""How long training waits for a checkpoint that is written beside it, on a disk so slow that writing takes seconds.

    python benchmarks/checkpoint.py [--quick] [--json FILE] [--megabytes-per-second N]

Two ranks train and save by turns with our saver and with torch.distributed.checkpoint.async_save: see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from command_line import timed_teller
from rank_processes import RanksFailed, answer_of, start_here
from report import Claim, machine, show
from slow_disk import NoSlowDisk, slow_disk

from hpcvideo.distributed.environment import child_variables, without_launcher

_RANKS = 2
_MODEL, _QUICK_MODEL = "tsm_resnet50", "tsm_resnet18"
_WORK = {"clips": 1, "frames": 8, "size": 64, "classes": 400}
_DISK_BYTES = 1 << 30
_PATIENCE_SECONDS = 900
_PACKAGES = ("hpcvideo", "torch", "deepspeed", "safetensors")
_PEER = "torch.distributed.checkpoint.async_save"


def stall_claim(quick: bool, megabytes_per_second: int, tell: Callable[[str], None]) -> Claim:
    """stall_over_write: seconds that training waits for a checkpoint over the seconds in which it is written."""
    name, bound = "stall_over_write", "<= 0.05"
    facts = {"model": _QUICK_MODEL if quick else _MODEL, "work": _WORK, "rounds": 3 if quick else 7}
    try:
        with (
            tempfile.TemporaryDirectory(prefix="hpcvideo-benchmark-") as folder,
            slow_disk(Path(folder), _DISK_BYTES, megabytes_per_second * 10**6) as disk,
        ):
            found = _measure({**facts, "disk": str(disk)}, Path(folder))
    except (NoSlowDisk, RanksFailed) as failure:
        return Claim(name, None, "x", bound, _PEER, f"NOT MEASURED: {failure}")
    rounds = found["rounds"]
    for kind, measured in rounds.items():
        stall, write = (median(one[key] for one in measured) for key in ("stall", "write"))
        tell(f"{kind}: stall {stall:.3f} s, written in {write:.2f} s, ratio {stall / write:.3f}")
    value = median(one["stall"] / one["write"] for one in rounds["ours"])
    size = sum(found["files"].values())
    how = (
        f"all seconds that training's own thread spends in the saver (copying to host memory, agreeing, looking whether it "
        f"is done) over the seconds of writing, flushing and renaming, median of {len(rounds['ours'])}; "
        f"{facts['model']} with momentum, {size / 1e6:.0f} MB in {len(found['files'])} files, {_RANKS} ranks of one thread, "
        f"both writing to one ext4 slowed to {megabytes_per_second} MB/s by the kernel (loop device, blkio throttle). "
        f"{_PEER} for information: {median(one['stall'] / one['write'] for one in rounds['torch']):.3f}"
    )
    return Claim(name, value, "x", bound, _PEER, how, _details(found))


def _details(found: dict[str, Any]) -> dict[str, Any]:
    rounds = found["rounds"]
    keys = ("stall", "write", "step_alone", "step_beside", "steps")
    three = {
        kind: {key: [float(f"{pick(one[key] for one in measured):.4g}") for pick in (median, min, max)] for key in keys}
        for kind, measured in rounds.items()
    }
    return {"seconds_median_lowest_highest": three, "files": found["files"], "events": found["events"]}


def _measure(facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What checkpoint_ranks.py finds. Raises RanksFailed."""
    told, out = folder / "facts.json", folder / "found.json"
    told.write_text(json.dumps({**facts, "out": str(out)}))
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu"))
    command = [sys.executable, str(Path(__file__).with_name("checkpoint_ranks.py")), str(told)]
    return answer_of(start_here(command, _RANKS, variables), out, _PATIENCE_SECONDS)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller model and 3 rounds: a look, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there instead of printing a table")
    parser.add_argument("--megabytes-per-second", type=int, default=50, metavar="N", help="what the disk takes (50)")
    options = parser.parse_args()
    if options.megabytes_per_second < 1:
        parser.error(f"--megabytes-per-second {options.megabytes_per_second}: 1 or more expected")
    return options


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the ranks are ended and the disk is taken away then too
    begin = time.monotonic()
    tell = timed_teller()
    environment = machine(_PACKAGES, sorted(os.sched_getaffinity(0)))
    claim = stall_claim(options.quick, options.megabytes_per_second, tell)
    show([claim], environment, time.monotonic() - begin, options.json)


if __name__ == "__main__":
    main()
