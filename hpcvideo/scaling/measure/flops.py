"""Model FLOPs utilisation: the arithmetic that a model needs over what its devices could do at best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcvideo.config import load_config
from hpcvideo.errors import InputError
from hpcvideo.runs import RunDirectory
from hpcvideo.scaling.measure.efficiency import Scale, Study
from hpcvideo.scaling.measure.records import RunLog

FORMULA = (
    "MFU = clips/s x operations a clip / (ranks x peak operations/s of a rank's device). Operations of a clip are those of "
    "the convolutions and matrix products of one forward and backward, as the model defines them (torch's FlopCounterMode; "
    "a multiplication and an addition are two; no gradient towards the clip; nothing that is computed again counts)"
)
"""What `utilisation` computes, in words for a report."""

SIXTEEN_BITS = "16 bit"
"""Precision name of a peak that bf16 and fp16 share."""

_COUNTED_METHODS = ("end_to_end", "pipeline")
"""Those that make one forward and one backward of each clip."""


@dataclass(frozen=True)
class Peak:
    """The most that one rank's device does: operations a second in "fp32" or SIXTEEN_BITS, and where the number is from."""

    flops_per_second: float
    precision: str
    source: str

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", SIXTEEN_BITS):
            raise InputError(f"a peak in {self.precision} is not known; use fp32 or {SIXTEEN_BITS}")
        if not 0 < self.flops_per_second < float("inf"):
            raise InputError(f"a peak of {self.flops_per_second:g} operations a second; give a number above 0")


@dataclass(frozen=True)
class ScaleMfu:
    """One scale. mfu: 0 to 1; None where words say why not. flops_per_clip: forward and backward."""

    ranks: int
    nodes: int
    global_batch: int
    mfu: float | None
    flops_per_clip: float | None
    precision: str | None
    peak: Peak | None
    words: str


def peaks_of(values: Mapping[str, float], source: str) -> tuple[Peak, ...]:
    """The peaks that a system's values (gpu_peak_fp32, gpu_peak_16bit, FLOP/s) tell."""
    keys = {"gpu_peak_fp32": "fp32", "gpu_peak_16bit": SIXTEEN_BITS}
    return tuple(Peak(values[key], precision, source) for key, precision in keys.items() if key in values)


def utilisation(study: Study, peaks: Sequence[Peak]) -> tuple[ScaleMfu, ...]:
    """Of each scale, in the study's order; each with the peak of its precision."""
    return tuple(_of_scale(scale, peaks) for scale in study.scales)


def flops_per_clip(run: RunLog) -> float:
    """Operations of forward and backward of one clip. Raises InputError where the run's config does not tell them."""
    from hpcvideo.scaling.model.layer_work import count_layers  # not before it is needed: it brings torch

    config = load_config(RunDirectory(run.path).config)
    if config.method.name not in _COUNTED_METHODS:
        raise InputError(
            f"{run.path}: method {config.method.name} does not compute one forward and backward of each clip, so the "
            "operations of a clip are not defined"
        )
    layers = count_layers(config, run.micro_batch)
    return sum(layer.forward_flops + layer.backward_flops for layer in layers) / run.micro_batch


def _of_scale(scale: Scale, peaks: Sequence[Peak]) -> ScaleMfu:
    runs = [repeat.run for repeat in scale.repeats]
    precisions = {run.precision for run in runs}
    precision = precisions.pop() if len(precisions) == 1 else None
    flops: float | None = None
    peak: Peak | None = None
    try:
        if precision is None:
            raise InputError("the logs of its runs tell no precision, or different ones")
        counts = {flops_per_clip(run) for run in runs}
        if len(counts) > 1:
            raise InputError("its runs are of different models or clips")
        flops = counts.pop()
        kind = "fp32" if precision == "fp32" else SIXTEEN_BITS
        peak = next((known for known in peaks if known.precision == kind), None)
        if peak is None:
            raise InputError(f"no peak of a device in {kind} is known; give it, or name a system that has it")
        mfu = scale.throughput * flops / (scale.ranks * peak.flops_per_second)
        if mfu > 1:
            raise InputError(
                f"{scale.throughput:.4g} clips/s x {flops:.4g} operations would be {mfu:.0%} of the peak of {scale.ranks} x "
                f"{peak.flops_per_second:.4g} ({peak.source}): this is not the peak of these devices"
            )
    except InputError as error:
        return ScaleMfu(*scale.key, None, flops, precision, peak, str(error))
    words = f"{precision}, peak {peak.flops_per_second / 1e12:.4g} TFLOP/s in {peak.precision} a rank ({peak.source})"
    return ScaleMfu(*scale.key, mfu, flops, precision, peak, words)
