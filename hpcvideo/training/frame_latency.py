"""How long frames of a live video take, for the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hpcvideo.methods.protocol import FrameLatency


def summarise_latencies(latencies: Sequence[FrameLatency]) -> dict[str, Any]:
    """`frames`, and seconds as `update` and (where any frame came so far) `learnt`: {median, p95, max} each."""
    told: dict[str, Any] = {"frames": len(latencies), "update": _spread([one.update for one in latencies])}
    learnt = [one.learnt for one in latencies if one.learnt is not None]
    return {**told, "learnt": _spread(learnt)} if learnt else told


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    median, p95 = np.percentile(seconds, (50, 95)).tolist()
    return {"median": median, "p95": p95, "max": max(seconds)}
