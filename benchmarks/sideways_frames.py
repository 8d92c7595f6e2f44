"""Future frames: Skip-Sideways sees motion, plain Sideways one frame at a time, and showing the newest frame again neither.

A disc with a texture goes a pixel a frame over a still texture, one of eight ways; what will be is told by two frames, not
by one. The same encoder-decoder of three units is trained plain and with one skip, from the frame to the head, by the same
recipe, and scored on other videos. Beside them, with one seed: back-propagation frame by frame on the plain network, and,
with the skip, exact gradients (through the unrolled graph, and delayed).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frame_training import Course, write_plan
from rank_processes import answer_of, start_here
from report import Claim

from hpcvideo.distributed.environment import child_variables, without_launcher

SKIPS = ["frames to head by concat"]
PLAIN, SKIPPING = ("sideways", "none"), ("skip_sideways", SKIPS)
BESIDE: list[tuple[str, Any]] = [("bp", "none"), ("unrolled", SKIPS), ("delayed", SKIPS)]

_RECIPE = {
    "global_batch": 8, "base_lr_per_64_clips": 0.04, "optimizer": {"name": "adamw"}, "decay": "cosine", "dropout": 0.0,
}  # fmt: skip
_MODEL = {"levels": 1, "width": 16}
_SEEDS, _UPDATES, _QUICK_UPDATES = (1, 2, 3), 200, 120
_PATIENCE_SECONDS = 1800


def course(updates: int) -> Course:
    """What all trainings share."""
    return Course(
        size=32, pixels_a_frame=1, frames=12, horizon=4, videos=256, held_out=96, model=_MODEL,
        recipe={**_RECIPE, "steps": updates},
    )  # fmt: skip


def claims(quick: bool, tell: Callable[[str], None]) -> list[Claim]:
    """The two claims over three seeds (quick: one, briefly trained); every value is the worst seed's. Two processes of one
    thread share the trainings."""
    seeds = _SEEDS[:1] if quick else _SEEDS
    trainings = [(*kind, seed) for seed in seeds for kind in (PLAIN, SKIPPING)]
    if not quick:
        trainings += [(*kind, seeds[0]) for kind in BESIDE]
    done = _train(course(_QUICK_UPDATES if quick else _UPDATES), trainings, tell)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for one in done:
        by_kind.setdefault(one["method"], []).append(one)
    plain, skipping = (_of(by_kind[kind[0]], "mse") for kind in (PLAIN, SKIPPING))
    copies = _of(by_kind[PLAIN[0]], "copy_mse")
    details = {
        "mse": {method: _of(found, "mse") for method, found in by_kind.items()},
        "ssim": {method: _of(found, "ssim") for method, found in by_kind.items()},
        "copy_mse": {method: _of(found, "copy_mse") for method, found in by_kind.items()},
        "seconds": {method: [round(one["seconds"], 1) for one in found] for method, found in by_kind.items()},
    }
    how = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}, the worst; mean squared error of held-out videos, {{}}"
    without, again = "plain Sideways, the same units without the skip", "the newest frame seen, shown again"
    return [
        _claim("frame_mse_skip_over_plain", "<= 0.95", skipping, plain, without, how, details),
        _claim("frame_mse_plain_over_copy", "<= 1", plain, copies, again, how, details),
    ]


def _claim(
    name: str, bound: str, ours: list[float], theirs: list[float], peer: str, how: str, details: dict[str, Any]
) -> Claim:
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    means = f"{statistics.mean(ours):.5f} against {statistics.mean(theirs):.5f} on average"
    return Claim(name, max(ratios), "", bound, peer, how.format(means), {**details, "ratios": ratios})


def _train(course: Course, trainings: list[tuple[str, Any, int]], tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """All of them, dealt to two processes; in the order of the list."""
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1", DS_LOG_LEVEL="warning"))
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for half in range(2):
            plan, answer = Path(folder) / f"plan-{half}.json", Path(folder) / f"answer-{half}.json"
            write_plan(plan, course, trainings[half::2])
            command = [sys.executable, str(Path(__file__).with_name("frame_training.py")), str(plan), str(answer)]
            started.append((start_here(command, 1, variables), answer))
        tell(f"future frames: {len(trainings)} trainings of {course.recipe['steps']} updates")
        halves = [answer_of(*one, _PATIENCE_SECONDS)["trainings"] for one in started]
    done: list[dict[str, Any]] = [halves[place % 2][place // 2] for place in range(len(trainings))]
    for one in done:
        error, copied = one["metrics"]["mse"], one["metrics"]["copy_mse"]
        tell(f"future frames, {one['method']}, seed {one['seed']}: {error:.5f}, the newest frame again {copied:.5f}")
    return done


def _of(found: list[dict[str, Any]], metric: str) -> list[float]:
    return [one["metrics"][metric] for one in found]
