"""The modelled line of a scaling report: fitted on the smallest scales of a study, predicting all the others.

It needs no system: the parts of a step are measured ones, and the exchange of gradients is a ring whose bandwidth is fitted.
Scales are of three kinds, one rank, several on a node, several nodes; each kind is fitted on the smallest scale of it.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hpcvideo.scaling.measure.efficiency import STEP_PHASES, RunMeasurement, Scale, Study
from hpcvideo.scaling.measure.intervals import Interval
from hpcvideo.scaling.measure.modelled import ModelledLine, ModelledScale

_PER_CLIP = ("to_device", "forward", "backward")
_MOST_CHOICES = 1000
_LEAST_SHARE = 0.02
"""An exchange that exposes less of a step than this is within the noise: it only tells how slow the network is at most."""
LAST_BUCKET_BYTES = 2**20
"""At most, as hpcvideo.methods.gradient_buckets has it; not imported, since a report does without torch."""
_KINDS = {(False, False): "one rank", (True, False): "several ranks on a node", (True, True): "several nodes"}


@dataclass(frozen=True)
class _Point:
    """What a run, or all repeats of a scale, say of a step. copies: ranks that hold the same parameters and share gradients;
    exchanged: bytes of them a rank; accumulation: backwards a step, the last of which alone runs beside the exchange."""

    ranks: int
    nodes: int
    copies: int
    clips: float
    accumulation: int
    exchanged: float
    buckets: int
    parts: Mapping[str, float]

    @property
    def kind(self) -> str:
        """One of _KINDS."""
        return _KINDS[self.ranks > 1, self.nodes > 1]

    @property
    def seconds(self) -> float:
        """Of a step."""
        return math.fsum(self.parts.values())


@dataclass(frozen=True)
class _Fit:
    """A point and the bytes/s of the ring that explain what its exchange exposes, None without one. least: whether only so
    much is known that it is not slower."""

    point: _Point
    speed: float | None
    least: bool = False


def modelled_line(study: Study) -> ModelledLine | str:
    """The line through all scales of the study, in their order, or the sentence why there is none.

    A step: to_device, forward and backward go with the clips of a rank; optimizer, other and pipeline_wait stay as they are
    at the fitted scale of the kind. data_wait is what loading, as long for a clip as there, takes beyond the rest. The
    exchange moves 2 (n - 1) / n of the gradients over the bandwidth; what the last backward behind its first large bucket
    does not cover, and at least the last bucket, is exposed. Ranges are those over choices of one repeat at each fitted
    scale, 5 to 95 %; the fitted scales have none.
    """
    if len(study.scales) < 2:
        return "A modelled line needs runs at two scales at least."
    for scale in study.scales:
        for repeat in scale.repeats:
            if repeat.run.gradient_bytes is None:
                return f"The event log of {repeat.run.name} does not tell how many bytes its ranks exchanged."
    fitted: dict[str, Scale] = {}
    for scale in study.scales:
        fitted.setdefault(_middle(scale).kind, scale)
    if len(fitted) == len(study.scales):
        known = ", ".join(_named(scale) for scale in fitted.values())
        return f"Every scale is needed to fit the line ({known}); a modelled line needs runs at a further one."
    fits = [_fit(_middle(scale)) for scale in fitted.values()]
    choices = itertools.islice(itertools.product(*(scale.repeats for scale in fitted.values())), _MOST_CHOICES)
    chances = [[_fit(_point(repeat)) for repeat in choice] for choice in choices]
    lines = []
    for scale in study.scales:
        at = _middle(scale)
        parts = _predict(fits, at)
        predicted = scale.key != fitted[at.kind].key
        steps = [math.fsum(_predict(chance, at).values()) for chance in chances] if predicted and len(chances) > 1 else []
        span = Interval(_quantile(steps, 0.05), _quantile(steps, 0.95)) if steps else None
        lines.append(ModelledScale(scale.ranks, scale.nodes, scale.global_batch, math.fsum(parts.values()), parts, span))
    keys = tuple(scale.key for scale in fitted.values())
    return ModelledLine(tuple(lines), keys, tuple(_words(study, fitted, fits, lines)))


def _middle(scale: Scale) -> _Point:
    points = [_point(repeat) for repeat in scale.repeats]
    parts = {phase: statistics.fmean(point.parts[phase] for point in points) for phase in STEP_PHASES}
    shrunk = scale.step_seconds / math.fsum(parts.values())  # parts are of the mean rank, a scale's step of the slowest
    return replace(points[0], parts={phase: seconds * shrunk for phase, seconds in parts.items()})


def _point(measured: RunMeasurement) -> _Point:
    run = measured.run
    shrunk = measured.step_seconds / math.fsum(measured.phase_seconds.values())
    return _Point(
        ranks=run.world_size, nodes=run.nodes, copies=run.replicas or run.world_size,
        clips=run.global_batch / run.world_size, accumulation=run.accumulation, exchanged=float(run.gradient_bytes or 0),
        buckets=max(1, run.gradient_buckets or 1),
        parts={phase: measured.phase_seconds[phase] * shrunk for phase in STEP_PHASES},
    )  # fmt: skip


def _fit(point: _Point) -> _Fit:
    if point.copies == 1 or not point.exchanged:
        return _Fit(point, None)
    exposed, least = point.parts["communication_exposed"], _LEAST_SHARE * point.seconds
    low, high = 1.0, 1e15
    for _ in range(200):  # more speed exposes less
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _exposed(middle, point, point) > max(exposed, least) else (low, middle)
    return _Fit(point, high, exposed < least)


def _exposed(speed: float, fitted: _Point, at: _Point) -> float:
    """Seconds of the exchange that backward, which takes as long for a clip as at the fitted point, does not cover."""
    ring = 2 * (at.copies - 1) / at.copies / speed
    backward = fitted.parts["backward"] * at.clips / fitted.clips / at.accumulation
    # Between a small first and a small last bucket there are large ones, the first of which is full after its share.
    large = max(1, at.buckets - 2)
    last = min(LAST_BUCKET_BYTES, at.exchanged / at.buckets)
    return max(ring * last, ring * at.exchanged - backward * (1 - 1 / large))


def _predict(fits: Sequence[_Fit], at: _Point) -> dict[str, float]:
    """Seconds of a step by part at the clips, ranks and bytes of `at`."""
    fit = next(fit for fit in fits if fit.point.kind == at.kind)
    known, clips = fit.point.parts, at.clips / fit.point.clips
    parts = {phase: known[phase] * (clips if phase in _PER_CLIP else 1.0) for phase in STEP_PHASES}
    if fit.speed is not None and (at.copies, at.clips) != (fit.point.copies, fit.point.clips):
        parts["communication_exposed"] = _exposed(fit.speed, fit.point, at)
    if known["data_wait"] > _LEAST_SHARE * fit.point.seconds:  # else loading is hidden, and nobody knows how far
        rest = math.fsum(seconds for phase, seconds in parts.items() if phase != "data_wait")
        parts["data_wait"] = max(0.0, fit.point.seconds * clips - rest)
    return parts


def _quantile(values: Sequence[float], share: float) -> float:
    """Between the sorted values, linearly."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _named(scale: Scale) -> str:
    ranks = f"{scale.ranks} rank{'s' * (scale.ranks > 1)}"
    return ranks if scale.nodes == 1 else f"{ranks} of {scale.nodes} nodes"


def _words(
    study: Study, fitted: Mapping[str, Scale], fits: Sequence[_Fit], lines: Sequence[ModelledScale]
) -> list[str]:
    """What was fitted to what, what was not, and how far off the predictions are."""
    told = [
        f"Fitted on the smallest scale of each kind: {', '.join(_named(scale) for scale in fitted.values())}. There the "
        "line is what was measured; at all others it is predicted."
    ]
    for fit in fits:
        if fit.speed is None:
            continue
        megabytes = f"{fit.speed / 1e6:.3g} MB/s"
        where = f"the ring of {fit.point.kind}"
        told.append(
            f"Backward hides the exchange: {where} is taken to be no faster than {megabytes}, the least that is in line "
            "with the log; predictions are on the safe side." if fit.least else
            f"The bandwidth of {where}, waiting for slower ranks included: {megabytes}."
        )  # fmt: skip
    if study.kind != "weak":
        told.append("Computing is taken to go with the clips of a rank; what small batches lose is not in the line.")
    keys = {scale.key for scale in fitted.values()}
    errors = [
        line.step_seconds / scale.step_seconds - 1
        for line, scale in zip(lines, study.scales, strict=True)
        if scale.key not in keys
    ]
    furthest = max(errors, key=abs)
    told.append(f"Predicted steps are off by {furthest:+.0%} at most, over {len(errors)} scale{'s' * (len(errors) > 1)}.")
    return told
