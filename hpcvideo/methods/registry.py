"""Methods by the name that a config gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from hpcvideo.errors import InputError
from hpcvideo.methods.end_to_end import EndToEnd
from hpcvideo.methods.options import EndToEndOptions, PipelineOptions
from hpcvideo.methods.pipeline.plan import replica_count
from hpcvideo.methods.protocol import Method, MethodParts


def _pipeline(parts: MethodParts, **options: Any) -> Method:
    from hpcvideo.methods.pipeline.method import Pipeline  # loads DeepSpeed, which the command line must not wait for

    return Pipeline(parts, **PipelineOptions(**options).model_dump(exclude={"zero"}))


def _end_to_end(parts: MethodParts, **options: Any) -> Method:
    return EndToEnd(parts, **EndToEndOptions(**options).model_dump())


_METHODS: dict[str, Callable[..., Method]] = {"end_to_end": _end_to_end, "pipeline": _pipeline}
_OPTIONS: dict[str, type[BaseModel]] = {"end_to_end": EndToEndOptions, "pipeline": PipelineOptions}


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
        faults = "; ".join(f"method.{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise InputError(faults) from None


def check_combination(name: str, options: Mapping[str, Any], optimizer: str) -> None:
    """Raise InputError where the method cannot work with the recipe's optimizer; also as `check_method`."""
    check_method(name, options)
    zero = options.get("zero", 0)
    if zero and optimizer != "sgd":
        raise InputError(
            f"method.zero = {zero} with recipe.optimizer.name = {optimizer}: ZeRO hands each rank a flat piece of many "
            "layers, but this optimizer scales every layer by its own norm; use zero: 0, or sgd"
        )


def stage_count(name: str, options: Mapping[str, Any]) -> int:
    """Ranks that share one copy of the model under this method: 1, or the stages of a pipeline."""
    check_method(name, options)
    return PipelineOptions(**options).stages if name == "pipeline" else 1


def data_parallel_size(name: str, options: Mapping[str, Any], world_size: int) -> int:
    """Into how many equal parts this method deals a global batch on `world_size` ranks.

    Raises InputError as `check_method`, and where the ranks do not divide into pipelines, with the nearest choices.
    """
    return replica_count(stage_count(name, options), world_size)


def create_method(name: str, options: Mapping[str, Any], parts: MethodParts) -> Method:
    """The method of that name with its engine started. Collective. Raises InputError as `check_method`."""
    check_method(name, options)
    return _METHODS[name](parts, **options)
