"""The measured steps as input of Extra-P, which fits models c0 + sum of c p^a log2(p)^b to them.

JSON lines (`extrap --json FILE`): one line a repeat with `params`, `callpath`, `metric`, `value`. Extra-P takes what it
reads for weak scaling; for strong scaling it wants time x ranks, so that metric is there, too. It asks for at least five
scales.
"""

from __future__ import annotations

import json
from typing import Any

from hpcvideo.scaling.measure.efficiency import STEP_PHASES, Study

TIME, RANK_SECONDS = "time", "rank_seconds"


def extra_p_lines(study: Study) -> str:
    """One line a run, part of its step and metric. `time` is seconds of one step, `rank_seconds` that times the ranks.

    Parameters are `ranks`, and nodes and global batch where ranks alone do not tell the scales apart.
    """
    varying: dict[str, set[Any]] = {
        "ranks": {scale.ranks for scale in study.scales},
        "nodes": {(scale.ranks, scale.nodes) for scale in study.scales},
        "global_batch": {scale.key for scale in study.scales},
    }
    names, told = ["ranks"], len(varying["ranks"])
    for name in ("nodes", "global_batch"):
        if len(varying[name]) > told:
            names, told = [*names, name], len(varying[name])
    lines = [
        {
            "params": {name: getattr(scale, name) for name in names},
            "callpath": callpath,
            "metric": metric,
            "value": factor * seconds,
        }
        for scale in study.scales
        for measurement in scale.repeats
        for callpath, seconds in (
            ("step", measurement.step_seconds),
            *((f"step->{phase}", measurement.phase_seconds[phase]) for phase in STEP_PHASES),
        )
        for metric, factor in ((TIME, 1), (RANK_SECONDS, scale.ranks))
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)
