"""The claim that what Sideways holds does not grow with the length of a clip."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contestant import ContestantFailed, run_once
from report import Claim

_SCRIPT = Path(__file__).parent / "step_contestants" / "sideways_memory.py"
_COMMAND = ("env", "OMP_NUM_THREADS=1", "DS_ACCELERATOR=cpu", "DS_LOG_LEVEL=warning", sys.executable, _SCRIPT)
_WAYS: dict[str, dict[str, Any]] = {
    "sideways, 1 rank": {"rule": "sideways", "ranks": 1},
    "sideways, 2 ranks": {"rule": "sideways", "ranks": 2},
    "delayed, 2 ranks": {"rule": "delayed", "ranks": 2},
    "back-propagation through time": {"rule": "unrolled", "ranks": 1},
}
FRAMES = (8, 64, 512)


def memory_claim(tell: Callable[[str], None], frames: tuple[int, ...] = FRAMES, **changes: Any) -> Claim:
    """memory_512_over_8_frames: of the longest clips over the shortest, the worst of all ranks and ways but BPTT.

    changes: of the contestants' configuration (see step_contestants/sideways_memory.py).
    """
    facts = {
        "model": "unit_vgg", "options": {"convolutions": 3, "dense": 0, "pools": 2, "width": 8, "skips": "over 1"},
        "size": 32, "batch": 2, "frames": frames,
    } | changes  # fmt: skip
    how = (
        f"bytes of messages (executor, both steps), of the exchange's buffers and of what autograd keeps (the peak, by "
        f"saved_tensors_hooks) on a rank, of clips of {frames[-1]} over {frames[0]} frames; the worst rank of sideways and "
        "delayed on 1 and 2 ranks, clips streaming; network of 4 units with skips over one. Parameters and the frames "
        "themselves are not counted"
    )
    peer = "the same network, shorter clips"
    try:
        found = {way: run_once(_COMMAND, {**facts, **change}) for way, change in _WAYS.items()}
    except ContestantFailed as error:
        return Claim("memory_512_over_8_frames", None, "x", "<= 1", peer, f"{how}; NOT MEASURED: {error}")
    table = {
        way: {length: max(rank["total"] for rank in ranks) for length, ranks in lengths.items()}
        for way, lengths in found.items()
    }
    for way, lengths in table.items():
        tell(f"{way}: " + ", ".join(f"{size:,} bytes at {length} frames" for length, size in lengths.items()))
    growth = {way: lengths[str(frames[-1])] / lengths[str(frames[0])] for way, lengths in table.items()}
    ours = [ratio for way, ratio in growth.items() if _WAYS[way]["rule"] != "unrolled"]
    equal = all(len(set(table[way].values())) == 1 for way in table if _WAYS[way]["rule"] != "unrolled")
    details = {
        "largest_rank_bytes": table, "growth": growth, "equal_to_the_byte": equal, "ranks": found, "settings": facts
    }  # fmt: skip
    return Claim("memory_512_over_8_frames", max(ours), "x", "<= 1", peer, how, details)
