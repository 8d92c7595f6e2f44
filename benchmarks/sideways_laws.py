"""What Sideways, Skip-Sideways and the delayed exact mode learn of time, beside back-propagation: three comparisons.

    python benchmarks/sideways_laws.py [--quick] [--json FILE]

- Laws of brightness that share every set of frames: a model blind to the order of frames is at chance.
- Directions of motion, the hard case: the gradient that comes down belongs to a place where the disc no longer is.
- Patterns that single frames show, on a disc that moves faster and faster, as if the frame rate fell.

Networks, optimizer and rate are the same for all methods of a comparison, and all but the number of updates are the same in
all three; see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from command_line import timed_teller
from rank_processes import answer_of, start_here
from report import Claim, machine, show
from unit_training import Course, Training

from hpcvideo.data.synthetic import DIRECTIONS
from hpcvideo.data.synthetic_laws import LAWS
from hpcvideo.distributed.environment import child_variables, without_launcher

SKIPS = ("frames to conv2 by concat",)
"""The only skip: the second of three units sees the newest frame beside what the first made of the one before."""

CHAIN: tuple[str, Any] = ("sideways", "none")
SKIPPING: tuple[str, Any] = ("skip_sideways", SKIPS)
DELAYED: tuple[str, Any] = ("delayed", SKIPS)
EXACT: tuple[str, Any] = ("unrolled", SKIPS)
EXACT_CHAIN: tuple[str, Any] = ("unrolled", "none")
BP: tuple[str, Any] = ("bp", "none")

_MODEL = {"convolutions": 2, "dense": 0, "pools": 1, "width": 8}
_RECIPE = {
    "global_batch": 32, "base_lr_per_64_clips": 0.04, "warmup_epochs": 0.25, "gradient_clip": 0.0, "dropout": 0.0,
    "boost_head": True, "optimizer": {"name": "lamb", "weight_decay": 0.0},
}  # fmt: skip
LAW_COURSE = Course("laws", 2048, 512, 16, 16, _MODEL, {**_RECIPE, "steps": 400}, marks=(0, 200))
DIRECTION_COURSE = Course("directions", 2048, 512, 24, 16, _MODEL, {**_RECIPE, "steps": 300}, marks=(0, 150))
RATE_COURSE = Course("patterns", 1024, 512, 16, 16, _MODEL, {**_RECIPE, "steps": 400})
RATES = (0, 1, 2, 4)
"""Pixels a frame: a still picture, and every first, second and fourth frame of one video."""

_COMPARED = (SKIPPING, DELAYED, EXACT)
"""Kinds of which the first seed's training compares gradients at the course's marks."""

_SEEDS = (1, 2, 3)
_PROCESSES = 2
_PATIENCE_SECONDS = 3600
Kind = tuple[str, Any]
Found = dict[Kind, list[dict[str, Any]]]


def scaled(course: Course, quick: bool) -> Course:
    """The course; with quick a tenth of it: whether it runs, not what comes out."""
    if not quick:
        return course
    steps = int(course.recipe["steps"]) // 10
    fewer = {**course.recipe, "steps": steps, "warmup_epochs": 0.05}
    return replace(course, train=course.train // 4, held_out=128, recipe=fewer, marks=course.marks[:1])


def claims(quick: bool, tell: Callable[[str], None]) -> list[Claim]:
    """All of them, three seeds each (quick: one seed of a tenth of the training). Two processes of one thread share the
    trainings."""
    seeds = _SEEDS[:1] if quick else _SEEDS
    laws, directions = scaled(LAW_COURSE, quick), scaled(DIRECTION_COURSE, quick)
    rates = {rate: replace(scaled(RATE_COURSE, quick), pixels_a_frame=rate) for rate in RATES}
    tasks = [(laws, (SKIPPING, CHAIN, EXACT, EXACT_CHAIN)), (directions, (DELAYED, EXACT, SKIPPING, CHAIN))]
    tasks += [(course, (BP, CHAIN)) for course in rates.values()]
    plan = [
        Training(course if kind in _COMPARED and seed == seeds[0] else replace(course, marks=()), *kind, seed)
        for course, kinds in tasks
        for kind in kinds
        for seed in seeds
    ]
    done = iter(trained(plan, tell))
    found = [{kind: [next(done) for _ in seeds] for kind in kinds} for _, kinds in tasks]
    of_laws, of_directions, *of_rates = found
    return [
        *_law_claims(laws, of_laws),
        _direction_claim(directions, of_directions),
        _rate_claim(rates[RATES[0]], dict(zip(RATES, of_rates, strict=True))),
    ]


def _law_claims(course: Course, found: Found) -> list[Claim]:
    chance = 1 / len(LAWS)
    details = {"accuracy": _table(found), "chance": chance, "cosines": _cosines(found), **_seconds(found)}
    off = abs(_mean(found[CHAIN]) - chance)
    how = (
        f"{', '.join(LAWS)}: {len(LAWS)} classes, chance {chance:.3g}; held-out clips, mean of the seeds (worst): "
        f"Skip-Sideways {_told(found[SKIPPING])}, back-propagation through the same graph {_told(found[EXACT])}; without "
        f"the skip Sideways {_told(found[CHAIN])}, back-propagation {_told(found[EXACT_CHAIN])}; {_course_words(course)}"
    )
    exact, chain = "back-propagation through the same graph", "chance; the same units without the skip"
    return [
        Claim("law_skip_accuracy", _mean(found[SKIPPING]), "", ">= 0.85", exact, how, details),
        Claim("law_plain_minus_chance", off, "", "<= 0.10", chain, how, details),
    ]


def _direction_claim(course: Course, found: Found) -> Claim:
    chance = 1 / len(DIRECTIONS)
    details = {"accuracy": _table(found), "chance": chance, "cosines": _cosines(found), **_seconds(found)}
    how = (
        f"{len(DIRECTIONS)} directions, chance {chance:.3g}; held-out clips, mean of the seeds (worst): delayed "
        f"{_told(found[DELAYED])}, back-propagation through the same graph {_told(found[EXACT])}, Skip-Sideways "
        f"{_told(found[SKIPPING])}, Sideways without the skip {_told(found[CHAIN])}; {_course_words(course)}"
    )
    peer = "Skip-Sideways; back-propagation through the same graph"
    return Claim("direction_delayed_accuracy", _mean(found[DELAYED]), "", ">= 0.90", peer, how, details)


def _rate_claim(course: Course, by_rate: dict[int, Found]) -> Claim:
    """On still pictures Sideways is back-propagation (but for the clip's first steps); what faster motion costs stands
    beside it."""
    table = {str(rate): _table(found) for rate, found in by_rate.items()}
    rows = "; ".join(
        f"{rate} px a frame {_told(found[CHAIN])} against {_told(found[BP])}" for rate, found in by_rate.items()
    )
    still = by_rate[0]
    how = f"patterns that one frame shows, Sideways against per-frame back-propagation: {rows}; {_course_words(course)}"
    lost = _mean(still[BP]) - _mean(still[CHAIN])
    details = {"accuracy_by_pixels_a_frame": table, **_seconds(still)}
    return Claim("still_bp_minus_sideways", lost, "", "<= 0.05", "per-frame back-propagation, same network", how, details)


def trained(plan: Sequence[Training], tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """What became of each training, as unit_training.Trained; dealt to processes, in the order of the plan."""
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1", DS_LOG_LEVEL="warning"))
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for number in range(_PROCESSES):
            part, answer = Path(folder) / f"plan-{number}.json", Path(folder) / f"answer-{number}.json"
            part.write_text(json.dumps([asdict(one) for one in plan[number::_PROCESSES]]))
            command = [sys.executable, str(Path(__file__).with_name("unit_training.py")), str(part), str(answer)]
            started.append((start_here(command, 1, variables), answer))
        tell(f"{len(plan)} trainings of networks of units")
        parts = [answer_of(*one, _PATIENCE_SECONDS)["trainings"] for one in started]
    done: list[dict[str, Any]] = [parts[place % _PROCESSES][place // _PROCESSES] for place in range(len(plan))]
    for training, one in zip(plan, done, strict=True):
        speed = "" if training.course.pixels_a_frame is None else f" at {training.course.pixels_a_frame} px a frame"
        tell(f"{training.course.clips}{speed}, {_name(training.method, training.skips)}, seed {training.seed}: "
             f"{one['accuracy']:.3f} in {one['seconds']:.0f} s")  # fmt: skip
    return done


def _name(method: str, skips: Any) -> str:
    return f"{method} without skip" if skips == "none" and method == "unrolled" else method


def _accuracies(found: list[dict[str, Any]]) -> list[float]:
    return [one["accuracy"] for one in found]


def _mean(found: list[dict[str, Any]]) -> float:
    return statistics.mean(_accuracies(found))


def _told(found: list[dict[str, Any]]) -> str:
    return f"{_mean(found):.3f} ({min(_accuracies(found)):.3f})"


def _table(found: Found) -> dict[str, list[float]]:
    return {_name(*kind): _accuracies(ones) for kind, ones in found.items()}


def _seconds(found: Found) -> dict[str, Any]:
    return {"seconds": {_name(*kind): [round(one["seconds"], 1) for one in ones] for kind, ones in found.items()}}


def _cosines(found: Found) -> dict[str, Any]:
    """Method -> updates made -> unit -> [one batch, 1,024 clips]: see unit_training.cosines; of the first seed."""
    return {_name(*kind): ones[0]["cosines"] for kind, ones in found.items() if ones[0]["cosines"]}


def _course_words(course: Course) -> str:
    recipe = course.recipe
    return (
        f"{course.train} clips of {course.frames} x {course.size} px, {recipe['steps']} updates of "
        f"{recipe['global_batch']} clips, 3 units, one update a clip"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed and a tenth of the training: whether it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there instead of printing a table")
    options = parser.parse_args()
    begin = time.monotonic()
    tell = timed_teller()
    environment = machine(("hpcvideo", "torch", "deepspeed", "numpy"), sorted(os.sched_getaffinity(0)))
    show(claims(options.quick, tell), environment, time.monotonic() - begin, options.json)


if __name__ == "__main__":
    main()
