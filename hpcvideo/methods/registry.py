"""Methods by the name that a config gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from torch import nn

from hpcvideo.errors import InputError
from hpcvideo.methods.end_to_end import EndToEnd
from hpcvideo.methods.options import (
    DelayedOptions,
    EndToEndOptions,
    PipelineOptions,
    ProgressiveOptions,
    SampledGradientsOptions,
    SidewaysOptions,
    UnitOptions,
)
from hpcvideo.methods.pipeline.plan import replica_count
from hpcvideo.methods.precision import Precision
from hpcvideo.methods.progressive.fragments import ClipCuts
from hpcvideo.methods.progressive.method import Progressive
from hpcvideo.methods.progressive.network import fragment_network_of
from hpcvideo.methods.progressive.plan import plan_cuts
from hpcvideo.methods.protocol import Method, MethodParts
from hpcvideo.methods.sampled_gradients.method import SampledGradients
from hpcvideo.methods.sampled_gradients.network_check import check_snippet_network
from hpcvideo.methods.sideways.method import Sideways
from hpcvideo.methods.sideways.network_check import check_precision, check_unit_network
from hpcvideo.methods.sideways.whole_clip import whole_clip
from hpcvideo.models.action_detector_network import FeatureDetectionNetwork
from hpcvideo.models.snippet_network import SnippetNetwork


def _pipeline(parts: MethodParts, **options: Any) -> Method:
    from hpcvideo.methods.pipeline.method import Pipeline  # loads DeepSpeed, which the command line must not wait for

    return Pipeline(parts, **PipelineOptions(**options).model_dump(exclude={"zero"}))


def _end_to_end(parts: MethodParts, **options: Any) -> Method:
    return EndToEnd(parts, **EndToEndOptions(**options).model_dump())


def _whole_clip(name: Literal["bp", "unrolled"]) -> Callable[..., Method]:
    def make(parts: MethodParts, **options: Any) -> Method:
        return whole_clip(parts, name, **EndToEndOptions(**options).model_dump())

    return make


def _progressive(parts: MethodParts, **options: Any) -> Method:
    return Progressive(parts, ProgressiveOptions(**options))


def _sideways(name: str) -> Callable[..., Method]:
    def make(parts: MethodParts, **options: Any) -> Method:
        checked = unit_options(name, options)
        assert checked is not None
        return Sideways(parts, name, checked)

    return make


def _sampled_gradients(parts: MethodParts, **options: Any) -> Method:
    return SampledGradients(parts, SampledGradientsOptions(**options))


_METHODS: dict[str, Callable[..., Method]] = {
    "end_to_end": _end_to_end,
    "pipeline": _pipeline,
    "sideways": _sideways("sideways"),
    "skip_sideways": _sideways("skip_sideways"),
    "delayed": _sideways("delayed"),
    "progressive": _progressive,
    "bp": _whole_clip("bp"),
    "unrolled": _whole_clip("unrolled"),
    "sampled_gradients": _sampled_gradients,
}
_OPTIONS: dict[str, type[BaseModel]] = {
    "end_to_end": EndToEndOptions,
    "pipeline": PipelineOptions,
    "sideways": SidewaysOptions,
    "skip_sideways": SidewaysOptions,
    "delayed": DelayedOptions,
    "progressive": ProgressiveOptions,
    "bp": EndToEndOptions,
    "unrolled": EndToEndOptions,
    "sampled_gradients": SampledGradientsOptions,
}


UNIT_METHODS = ("sideways", "skip_sideways", "delayed", "bp", "unrolled")
"""Those that need a network of units."""


def known_methods() -> list[str]:
    """Names that `create_method` accepts."""
    return sorted(_METHODS)


def check_method(name: str, options: Mapping[str, Any]) -> None:
    """Raise InputError for an unknown name or an option that the method does not take."""
    if name not in _METHODS:
        raise InputError(f"method.name = {name!r} is unknown; known are {', '.join(known_methods())}")
    known = _OPTIONS[name].model_fields
    for option in options:
        if option not in known:
            raise InputError(f"method.{option}: method {name} has no such option; its options: {', '.join(known) or 'none'}")
    try:
        _OPTIONS[name](**options)
    except ValidationError as error:
        faults = (
            f"{'.'.join(['method', *map(str, fault['loc'])])}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        )
        raise InputError("; ".join(faults)) from None


def check_combination(
    name: str, options: Mapping[str, Any], optimizer: str, precision: Precision = "fp32"
) -> None:
    """Raise InputError where the method cannot work with the recipe's optimizer or precision; also as `check_method`."""
    check_method(name, options)
    if works_on_units(name):
        check_precision(name, precision)
    zero = options.get("zero", 0)
    if zero and optimizer != "sgd":
        why = "it was tried with sgd alone" if optimizer == "adamw" else "this optimizer scales every layer by its own norm"
        raise InputError(
            f"method.zero = {zero} with recipe.optimizer.name = {optimizer}: ZeRO hands each rank a flat piece of many "
            f"layers, but {why}; use zero: 0, or sgd"
        )


def check_network(name: str, options: Mapping[str, Any], model: nn.Module) -> None:
    """Raise InputError where the method cannot work with this network or the length of its clips; also as `check_method`."""
    check_method(name, options)
    if name in UNIT_METHODS:
        check_unit_network(name, model, _OPTIONS[name](**options))
    if name == "pipeline" and isinstance(model, SnippetNetwork | FeatureDetectionNetwork):
        raise InputError(f"method pipeline cuts models of one clip, not {type(model).__name__}; use sampled_gradients")
    if name == "sampled_gradients":
        check_snippet_network(model, SampledGradientsOptions(**options))


def clip_cuts(name: str, options: Mapping[str, Any], model: nn.Module, frames: int) -> ClipCuts | None:
    """How the method wants clips of `frames` frames delivered in fragments; None where it takes them whole.

    Raises InputError as `check_network`.
    """
    if name != "progressive":
        return None
    check_method(name, options)
    return plan_cuts(ProgressiveOptions(**options), fragment_network_of(model), frames)


def works_on_units(name: str) -> bool:
    """Whether stages of this method hold units that all work at once (sideways and its like), and not layers that wait for
    each other's micro-batches (pipeline)."""
    return issubclass(_OPTIONS[name], UnitOptions)


def unit_options(name: str, options: Mapping[str, Any]) -> SidewaysOptions | DelayedOptions | None:
    """The checked options of a method that works on units, None of any other. Raises InputError as `check_method`."""
    check_method(name, options)
    checked = _OPTIONS[name](**options)
    return checked if isinstance(checked, SidewaysOptions | DelayedOptions) else None


def stage_count(name: str, options: Mapping[str, Any]) -> int:
    """Ranks that share one copy of the model under this method: 1, or the stages of a pipeline or of units."""
    check_method(name, options)
    checked = _OPTIONS[name](**options)
    return checked.stages if isinstance(checked, PipelineOptions | UnitOptions) else 1


def data_parallel_size(name: str, options: Mapping[str, Any], world_size: int) -> int:
    """Into how many equal parts this method deals a global batch on `world_size` ranks.

    Raises InputError as `check_method`, and where the ranks do not divide into pipelines, with the nearest choices.
    """
    return replica_count(stage_count(name, options), world_size)


def create_method(name: str, options: Mapping[str, Any], parts: MethodParts) -> Method:
    """The method of that name with its engine started. Collective. Raises InputError as `check_method`."""
    check_method(name, options)
    return _METHODS[name](parts, **options)
