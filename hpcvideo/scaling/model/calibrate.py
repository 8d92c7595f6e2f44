"""Fits a system's numbers to the event logs of small runs, so that larger ones are predicted from what was measured.

The parts of a step at every scale are compared with those that the cost model gives. A number that these do not determine
keeps the system's value, or as much of it as the logs allow, and is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hpcvideo.config import RunConfig, load_config
from hpcvideo.errors import InputError
from hpcvideo.runs import RunDirectory
from hpcvideo.scaling.measure.efficiency import Scale, SteadyWindow, measure_run, study
from hpcvideo.scaling.measure.records import RunLog
from hpcvideo.scaling.model.estimate import Estimate
from hpcvideo.scaling.model.job import Job, job_at
from hpcvideo.scaling.model.least_squares import Fitted, Residuals, fit
from hpcvideo.scaling.model.quantities import QUANTITIES
from hpcvideo.scaling.model.run_noise import epoch_seconds, rank_sigma
from hpcvideo.scaling.model.set_facts import JPEG_FRAME_BYTES, SetFacts
from hpcvideo.scaling.model.step import StepParts, step_parts
from hpcvideo.scaling.model.system import System

PARTS: Mapping[str, tuple[str, ...]] = {
    "data_wait": ("data_wait",),
    "to_device": ("to_device",),
    "forward": ("forward",),
    "backward": ("backward",),
    "communication": ("communication_exposed", "pipeline_wait", "stragglers"),
    "optimizer": ("optimizer",),
    "other": ("other",),
}
"""What is compared: name -> parts of the model's step (and phases of the log), added up."""

_PRODUCTS: Mapping[str, set[str]] = {
    "collective_efficiency": {"inter_bandwidth", "intra_bandwidth"},
    "gpu_peak_fp32": {"compute_efficiency_fp32"},
    "gpu_peak_16bit": {"compute_efficiency_16bit"},
    "gpu_memory_bandwidth": {"memory_efficiency"},
}
"""Numbers that count only in a product with others: where these are fitted, their own doubt is in the fit already."""

_NOISE = 0.01  # of a step: what a part is off at least, however well the model fits
_MOST_ERROR = 0.5  # of a logarithm: a number less certain than by a factor of 1.65 counts as not determined
_CERTAIN = 1.645  # standard errors from the middle to 5 and 95 %
_LEAST, _MOST = 1e-12, 1e24
_OVERHEAD = 1e-3  # seconds to begin from where a system says nothing of step_overhead


@dataclass(frozen=True)
class Residual:
    """A part of a step at one scale, in seconds: measured, and as the calibrated model has it."""

    ranks: int
    nodes: int
    global_batch: int
    part: str
    measured: float
    modelled: float


@dataclass(frozen=True)
class Calibration:
    """A system whose numbers were fitted to runs.

    fitted: what the runs determine, with 5 and 95 %. undetermined: what they do not, with a sentence that says why and what
    is used instead. residuals: every part of PARTS at every scale, and `step`. words: sentences for people.
    """

    system: System
    fitted: Mapping[str, Estimate]
    undetermined: Mapping[str, str]
    residuals: tuple[Residual, ...]
    words: tuple[str, ...]


def calibrate(runs: Sequence[RunLog], system: System, planned: RunConfig | None = None) -> Calibration:
    """The system with its numbers fitted to the steady steps of the runs.

    planned: what will be predicted with it. How much of the peak kernels reach is the model's and the precision's own, so
    runs of others are refused. Raises InputError for these, where there is no run, one keeps no config.yaml, or nothing at
    all can be determined.
    """
    if not runs:
        raise InputError("--calibrate: no run to calibrate with; give the directories of finished runs")
    window = SteadyWindow()
    scales = study([measure_run(run, window) for run in runs], window).scales
    jobs = [job_of(scale.repeats[0].run) for scale in scales]
    if planned is not None:
        for scale, job in zip(scales, jobs, strict=True):
            _check_same(scale.repeats[0].run, job.config, planned)
    measured = [_measured(scale) for scale in scales]
    fitted: dict[str, Estimate] = {}
    undetermined: dict[str, str] = {}
    scatter = rank_sigma(runs)
    if isinstance(scatter, Estimate):
        scatter = _beside_differences(scatter, system.estimates["rank_sigma"])
    for key, told in (("rank_sigma", scatter), ("epoch_seconds", epoch_seconds(runs))):
        if isinstance(told, Estimate):
            fitted[key] = told
        else:
            undetermined[key] = told
    base = system.with_estimates(fitted).values  # waiting for slower ranks is part of what is fitted

    def residuals(changes: Mapping[str, float]) -> NDArray[np.float64]:
        values = {**base, **changes}
        off = [
            (modelled[part] - parts[part]) / math.fsum(parts.values())
            for job, parts in zip(jobs, measured, strict=True)
            for modelled in [_grouped(step_parts(job, values))]
            for part in PARTS
        ]
        return np.array(off)

    free = _free(jobs, base)
    found, dropped = _determined(residuals, free)
    if not found.values:
        raise InputError(
            f"--calibrate: the logs of {', '.join(run.name for run in runs)} determine none of {', '.join(free)}; "
            "give runs with at least two step lines in their steady state, on one rank and on several"
        )
    source = f"fitted to the event logs of {_named(scales)}"
    fitted |= {key: _estimate(key, value, found.errors[key], source) for key, value in found.values.items()}
    undetermined |= {key: words for key, (_, words) in dropped.items()}
    changes = {**fitted, **{key: estimate for key, (estimate, _) in dropped.items() if estimate is not None}}
    for key, partners in _PRODUCTS.items():
        if partners & changes.keys():
            held = f"held at the system's value: logs determine only its product with {' and '.join(sorted(partners))}"
            changes[key] = Estimate.known(base[key], held)
    calibrated = replace(system.with_estimates(changes), name=f"{system.name}-calibrated")
    rows = tuple(_rows(scales, jobs, measured, calibrated.values))
    return Calibration(calibrated, fitted, undetermined, rows, tuple(_words(scales, fitted, undetermined, rows)))


def not_reached(found: Calibration, jobs: Sequence[Job]) -> str | None:
    """One sentence about the numbers that these jobs depend on and the runs of a calibration did not determine."""
    needed = [*_free(jobs, found.system.values), "rank_sigma"]
    missing = [key for key in needed if key not in found.fitted and key != "step_overhead"]
    if not missing:
        return None
    return (
        f"--calibrate: the runs do not determine {', '.join(missing)}, on which this plan rests too; there the system's own "
        "numbers and bounds stand."
    )


def job_of(run: RunLog) -> Job:
    """The job that a run was, for the model. Raises InputError where it keeps no config.yaml."""
    path = RunDirectory(run.path).config
    if not path.is_file():
        raise InputError(f"{run.path}: no {path.name} there, so the model does not know what was trained")
    config = load_config(path)
    data = SetFacts(run.train_samples, 0, JPEG_FRAME_BYTES, 300, f"the event log of {run.name}")
    return job_at(config, run.nodes, run.ranks_per_node, data, run.global_batch)


def _check_same(run: RunLog, trained: RunConfig, planned: RunConfig) -> None:
    """InputError where a run's kernels are not those of the plan."""
    same = trained.model.name == planned.model.name and _efficiency_key(trained) == _efficiency_key(planned)
    if not same:
        raise InputError(
            f"--calibrate {run.path}: trained {trained.model.name} in {trained.recipe.precision}, but the plan is of "
            f"{planned.model.name} in {planned.recipe.precision}; give small runs of the planned config"
        )


def _efficiency_key(config: RunConfig) -> str:
    return "compute_efficiency_fp32" if config.recipe.precision == "fp32" else "compute_efficiency_16bit"


def _beside_differences(scatter: Estimate, system: Estimate) -> Estimate:
    """rank_sigma from one rank's scatter over time, with the differences between GPUs, of which one rank tells nothing."""
    value, low, high = (
        min(1.0, math.hypot(own, between))
        for own, between in ((scatter.value, system.value), (scatter.low, system.low), (scatter.high, system.high))
    )
    source = f"{scatter.source}, and the system's own for differences between GPUs, added as root of squares"
    return Estimate(value, low, high, source)


def _measured(scale: Scale) -> dict[str, float]:
    """Seconds by name of PARTS, brought to the scale's step, which is the slowest rank's."""
    phases = scale.phase_seconds
    shrunk = scale.step_seconds / math.fsum(phases.values())
    return {name: shrunk * math.fsum(phases.get(part, 0.0) for part in parts) for name, parts in PARTS.items()}


def _grouped(step: StepParts) -> dict[str, float]:
    parts = step.parts()
    return {name: math.fsum(parts[part] for part in own) for name, own in PARTS.items()}


def _free(jobs: Sequence[Job], base: Mapping[str, float]) -> dict[str, float]:
    """The numbers that jobs like these can depend on, and the system's values of them."""
    keys = sorted({_efficiency_key(job.config) for job in jobs})
    nodes, ranks_per_node = max(job.nodes for job in jobs), max(job.ranks_per_node for job in jobs)
    keys += ["inter_bandwidth"] * (nodes > 1)
    keys += ["intra_bandwidth"] * (ranks_per_node > 1)
    keys += ["memory_efficiency", "decode_frames_per_core", "host_to_device_bandwidth"]
    keys += ["overlap_slowdown"] * any(job.ranks > 1 for job in jobs)
    free = {key: base[key] for key in keys if base[key] > 0} | {"step_overhead": base.get("step_overhead") or _OVERHEAD}
    latencies = ["inter_latency"] * ("inter_bandwidth" in free) + ["intra_latency"] * ("intra_bandwidth" in free)
    return free | {key: base[key] for key in latencies if base[key] > 0}


def _determined(residuals: Residuals, start: Mapping[str, float]) -> tuple[Fitted, dict[str, tuple[Estimate | None, str]]]:
    """(the fit of what is determined, {what is not: (what is used instead of the system's value, if anything; why)})."""
    dropped: dict[str, tuple[Estimate | None, str]] = {}
    held: dict[str, float] = {}
    found = _fit(residuals, held, start, scan=True)
    # What hardly matters goes first: of a bandwidth and a latency that explain the same, the latency is given up.
    while unsure := [key for key in found.values if not found.errors[key] <= _MOST_ERROR]:
        key, unit = unsure[-1], QUANTITIES[unsure[-1]].unit
        free = {name: value for name, value in found.values.items() if name != key}
        without = _fit(residuals, {**held, key: start[key]}, free)
        if without.sum <= _allowed(found):
            held[key], found = start[key], without
            dropped[key] = None, f"the logs do not determine it; the system's {start[key]:.3g} {unit} stands"
            continue
        nearest = _nearest(partial(_with, residuals, {**held, **free}), key, start[key], found)
        held[key] = nearest
        found = _fit(residuals, held, free)
        bound = "at least" if nearest > start[key] else "at most"
        words = f"the logs only tell that it is {bound} {nearest:.3g} {unit}, which is used"
        low, high = (nearest, 10 * nearest) if nearest > start[key] else (nearest / 10, nearest)
        dropped[key] = Estimate(nearest, max(low, _bounds(key)[0]), min(high, _bounds(key)[1]), words), words
    return found, dropped


def _fit(residuals: Residuals, held: Mapping[str, float], free: Mapping[str, float], scan: bool = False) -> Fitted:
    return fit(partial(_with, residuals, held), free, {key: _bounds(key) for key in free}, _NOISE, scan)


def _allowed(found: Fitted) -> float:
    """The sum of squares up to which another choice explains the logs as well."""
    return 1.1 * found.sum + _NOISE**2


def _nearest(residuals: Residuals, key: str, before: float, found: Fitted) -> float:
    """The value closest to `before`, which does not, that explains the logs about as well as the fitted one."""
    far, near = math.log(before), math.log(found.values[key])
    for _ in range(40):
        middle = (far + near) / 2
        explains = float((residuals({key: math.exp(middle)}) ** 2).sum()) <= _allowed(found)
        far, near = (far, middle) if explains else (middle, near)
    return math.exp(near)


def _with(residuals: Residuals, held: Mapping[str, float], values: Mapping[str, float]) -> NDArray[np.float64]:
    return residuals({**held, **values})


def _bounds(key: str) -> tuple[float, float]:
    quantity = QUANTITIES[key]
    return max(quantity.least, _LEAST), min(quantity.most, _MOST)


def _estimate(key: str, value: float, error: float, source: str) -> Estimate:
    low, high = _bounds(key)
    spread = math.exp(_CERTAIN * error)
    return Estimate(value, max(low, value / spread), min(high, value * spread), source)


def _rows(
    scales: Sequence[Scale], jobs: Sequence[Job], measured: Sequence[Mapping[str, float]], values: Mapping[str, float]
) -> Iterator[Residual]:
    for scale, job, parts in zip(scales, jobs, measured, strict=True):
        modelled = _grouped(step_parts(job, values))
        for part in PARTS:
            yield Residual(*scale.key, part, parts[part], modelled[part])
        yield Residual(*scale.key, "step", math.fsum(parts.values()), math.fsum(modelled.values()))


def _named(scales: Sequence[Scale]) -> str:
    ranks = ", ".join(f"{scale.ranks} on {scale.nodes}" for scale in scales)
    runs = sum(len(scale.repeats) for scale in scales)
    return f"{runs} run{'s' * (runs > 1)} (ranks on nodes: {ranks})"


def _words(
    scales: Sequence[Scale], fitted: Mapping[str, Estimate], undetermined: Mapping[str, str], rows: Sequence[Residual]
) -> Iterator[str]:
    known = (
        f"{key} = {one.value:.3g} ({one.low:.3g} to {one.high:.3g}) {QUANTITIES[key].unit}" for key, one in fitted.items()
    )
    yield f"Fitted to {_named(scales)}: {'; '.join(known)}."
    for key, why in undetermined.items():
        yield f"{key}: {why}."
    steps = [row for row in rows if row.part == "step"]
    worst = max(steps, key=lambda row: abs(row.modelled / row.measured - 1))
    yield (
        f"The calibrated model gives the steps it was fitted to within {abs(worst.modelled / worst.measured - 1):.1%} "
        f"(worst: {worst.ranks} ranks, {worst.measured:.4g} s measured, {worst.modelled:.4g} s modelled)."
    )
    if all(row.nodes == 1 for row in steps):
        yield "All runs were on one node: what the network between nodes does is the system's word alone."
