"""Seconds of a rank's own work in a step: forward and backward by a roofline of each kernel, optimizer, copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpcvideo.errors import InputError
from hpcvideo.scaling.model.estimate import Values
from hpcvideo.scaling.model.layer_work import LayerWork

Precision = Literal["fp32", "bf16", "fp16"]

_MOST_EFFICIENT = 1.5  # of the peak: Winograd's convolutions take fewer operations than are counted
_NORMALISE_BYTES = 1 + 4 + 3 * 8  # a pixel: read as uint8, written as float, then three operations in place
_NORMALISE_KERNELS = 4


def layer_seconds(layer: LayerWork, values: Values, precision: Precision = "fp32") -> tuple[float, float]:
    """(forward, backward) seconds of a layer at one micro-batch.

    Each kernel takes the longer of its arithmetic and its memory traffic, and a fixed time on top (the roofline model,
    Williams et al., CACM 52(4), 2009, with a latency): max(operations / (peak x compute_efficiency), bytes /
    (gpu_memory_bandwidth x memory_efficiency)) + kernel_seconds. In 16 bits tensors are half as large; autocast then also
    casts weights before, and their gradients after (6 bytes a parameter, one kernel a weight).
    """
    share = 1.0 if precision == "fp32" else 0.5
    speed, bandwidth = _arithmetic(values, precision), _memory(values)
    seconds = []
    for kernels in (layer.forward_kernels, layer.backward_kernels):
        one = _roofline(kernels, speed, bandwidth / share) + len(kernels) * values["kernel_seconds"]
        if precision != "fp32":
            weights = int(np.count_nonzero(layer.forward_kernels[:, 0]))
            one += 6.0 * layer.parameters / bandwidth + weights * values["kernel_seconds"]
        seconds.append(one)
    return seconds[0], seconds[1]


def model_seconds(layers: Sequence[LayerWork], values: Values, precision: Precision = "fp32") -> tuple[float, float]:
    """(forward, backward) seconds of layers that run one after another: the sums of `layer_seconds`."""
    pairs = [layer_seconds(layer, values, precision) for layer in layers]
    return sum(forward for forward, _ in pairs), sum(backward for _, backward in pairs)


def fitted_efficiency(
    layers: Sequence[LayerWork], seconds: float, values: Values, precision: Precision = "fp32"
) -> float:
    """The compute efficiency at which forward and backward of one micro-batch take so many seconds.

    values: those of the system; its own compute efficiency is not read. By bisection to 1e-9. Raises InputError where no
    efficiency from 1e-6 to 1.5 does: memory traffic and kernels alone may take longer.
    """
    key = _keys(precision)[1]

    def taken(efficiency: float) -> float:
        return sum(model_seconds(layers, {**values, key: efficiency}, precision))

    low, high = 1e-6, _MOST_EFFICIENT
    if not taken(high) <= seconds <= taken(low):
        raise InputError(
            f"{seconds:g} s for forward and backward fit no {key}: at {high:g} of the peak the model needs "
            f"{taken(high):g} s; check the measurement, gpu_memory_bandwidth x memory_efficiency and kernel_seconds"
        )
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if taken(middle) > seconds else (low, middle)
    return (low + high) / 2


def to_device_seconds(clip_bytes: float, values: Values) -> float:
    """Seconds to bring uint8 clips of so many bytes to the device and to normalise them there to fp32.

    bytes / host_to_device_bandwidth, and what `models.normalisation.normalise_clips` reads and writes.
    """
    normalise = clip_bytes * _NORMALISE_BYTES / _memory(values) + _NORMALISE_KERNELS * values["kernel_seconds"]
    return clip_bytes / values["host_to_device_bandwidth"] + normalise


def optimizer_seconds(parameters: float, copies: float, values: Values) -> float:
    """Seconds of the gradient's norm and an update of so many fp32 parameters; bound by memory.

    copies: numbers kept beside each parameter (momentum: 1). Passes over 4 bytes a parameter, counted on torch's unfused
    SGD: 1 for the norm, 3 for weight decay (two reads, a write), 3 for the step, and 5 a copy (scaled in place, then
    added to).
    """
    return 4.0 * parameters * (7 + 5 * copies) / _memory(values)


def bucket_seconds(parameters: float, wire: Precision, values: Values) -> float:
    """Seconds to copy so many fp32 gradients into the buckets of an exchange, and out of them where the wire has 16 bits.

    8 bytes a parameter in fp32, whose gradients stay where they were received; 6 each way in 16 bits.
    """
    return parameters * (8.0 if wire == "fp32" else 12.0) / _memory(values)


def _roofline(kernels: NDArray[np.float64], speed: float, bandwidth: float) -> float:
    return float(np.maximum(kernels[:, 0] / speed, kernels[:, 1] / bandwidth).sum())


def _keys(precision: Precision) -> tuple[str, str]:
    kind = "fp32" if precision == "fp32" else "16bit"
    return f"gpu_peak_{kind}", f"compute_efficiency_{kind}"


def _arithmetic(values: Values, precision: Precision) -> float:
    peak, efficiency = _keys(precision)
    return values[peak] * values[efficiency]


def _memory(values: Values) -> float:
    return values["gpu_memory_bandwidth"] * values["memory_efficiency"]
