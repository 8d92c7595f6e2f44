"""Where the time of a training step goes, by kinds of work, from torch's profiler."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

_KINDS = {
    "convolution": ("mkldnn_convolution", "convolution", "slow_conv", "_slow_conv2d", "mm", "addmm", "thnn_conv2d"),
    "batch norm": ("native_batch_norm", "batch_norm", "_batch_norm_impl_index"),
    "relu, add, pooling": ("clamp_min", "threshold", "relu", "add", "max_pool2d", "mean", "sum", "div"),
}
_SHIFT = (
    "_MovedConvolution", "_Shift", "aten::cat", "aten::constant_pad_nd", "aten::slice_backward",
    "autograd::engine::evaluate_function: CatBackward", "autograd::engine::evaluate_function: ConstantPadNdBackward",
    "autograd::engine::evaluate_function: SliceBackward",
)  # fmt: skip
_OPTIMIZER = ("Optimizer.",)


def kind_of(name: str, inside: list[str]) -> str:
    """The kind of work of an operator `name` that was called inside the operators `inside`, nearest first.

    Products of matrices are convolutions: those of our shifted 1x1 ones, and the small ones of the classifier. What is
    done inside the shift's functions apart from products (copies, zeros, concatenation) is the shift.
    """
    if any(outer.startswith(_OPTIMIZER) for outer in (name, *inside)):
        return "optimizer"
    plain = name.removeprefix("aten::").removesuffix("_backward").rstrip("_")
    for kind in ("convolution", "batch norm"):
        if plain.startswith(_KINDS[kind]) or plain in _KINDS[kind]:
            return kind
    if "aten::stack" not in inside and any(outer.startswith(_SHIFT) for outer in (name, *inside)):
        return "shift"
    if plain.startswith(_KINDS["relu, add, pooling"]):
        return "relu, add, pooling"
    return "other"


def profile_step(step: Callable[[], float], runs: int = 3) -> dict[str, Any]:
    """{"milliseconds": total of the quickest of some steps, "share": {kind: part of it}}: what disturbs only slows.

    The profiler itself costs some of `other`.
    """
    return min((_profile_once(step) for _ in range(runs)), key=lambda profiled: float(profiled["milliseconds"]))


def _profile_once(step: Callable[[], float]) -> dict[str, Any]:
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    by_kind: dict[str, float] = defaultdict(float)
    for event in recorded.events():
        inside, parent = [], event.cpu_parent
        while parent is not None:
            inside.append(parent.name)
            parent = parent.cpu_parent
        by_kind[kind_of(event.name, inside)] += event.self_cpu_time_total / 1000
    total = sum(by_kind.values())
    shares = {kind: round(spent / total, 4) for kind, spent in sorted(by_kind.items(), key=lambda item: -item[1])}
    return {"milliseconds": round(total, 1), "share": shares}
