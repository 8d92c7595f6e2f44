"""Every model by its name: which there are, which options each takes, and how one is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from hpcvideo.errors import InputError
from hpcvideo.models.frame_blocks import ShiftPlace
from hpcvideo.models.inflated import TEMPORAL_STRIDES, InflatedBlocks, InflatedResNet, Kernel
from hpcvideo.models.mobilenet import FrameMobileNet
from hpcvideo.models.resnet import BLOCKS_PER_LAYER, FrameResNet


def create_model(name: str, num_classes: int, frames: int, **options: Any) -> nn.Module:
    """Make the model `name`, freshly initialised from torch's random state.

    The model maps clips [batch, frames, 3, height, width] float to logits [batch, num_classes], says `frames`, and
    offers `layers()`, its parts in execution order, and `layer_modules()`, the submodules that each part owns. Options
    left out have their defaults (`model_options`).
    Raises InputError for a name, an option or a value that does not exist, with those that do.
    """
    known = model_options(name)
    for option in options:
        if option not in known:
            raise InputError(f"model {name} has no option {option!r}; it has: {', '.join(known)}")
    _require(_is_whole(num_classes, 1), f"num_classes = {num_classes!r}", "a whole number from 1 on")
    _require(_is_whole(frames, 1), f"frames = {frames!r}", "a whole number from 1 on")
    values = known | options
    _check_values(values, frames)
    return _BUILDERS[name](num_classes, frames, **values)


def known_models() -> tuple[str, ...]:
    """The names that `create_model` takes."""
    return tuple(_BUILDERS)


def model_options(name: str) -> dict[str, Any]:
    """Option -> default value of the model `name`. Raises InputError for an unknown name."""
    if name not in _BUILDERS:
        raise InputError(f"there is no model {name!r}; there are: {', '.join(known_models())}")
    builder = _BUILDERS[name]
    fixed = builder.keywords if isinstance(builder, partial) else {}
    parameters = inspect.signature(builder).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in fixed
    }


def _tsn_resnet(
    num_classes: int,
    frames: int,
    *,
    depth: int,
    temporal_pool: bool = False,
    zero_gamma: bool = False,
    dropout: float = 0.5,
    width: int = 64,
    channels_last: bool = False,
) -> nn.Module:
    return FrameResNet(
        depth, num_classes, frames, temporal_pool=temporal_pool, zero_gamma=zero_gamma, dropout=dropout, width=width,
        channels_last=channels_last,
    )  # fmt: skip


def _tsm_resnet(
    num_classes: int,
    frames: int,
    *,
    depth: int,
    shift_fraction: int = 8,
    shift_place: ShiftPlace = "blockres",
    causal: bool = False,
    temporal_pool: bool = False,
    zero_gamma: bool = False,
    dropout: float = 0.5,
    width: int = 64,
    channels_last: bool = False,
) -> nn.Module:
    return FrameResNet(
        depth, num_classes, frames, shift_fraction=shift_fraction, shift_place=shift_place, causal=causal,
        temporal_pool=temporal_pool, zero_gamma=zero_gamma, dropout=dropout, width=width, channels_last=channels_last,
    )  # fmt: skip


def _tsn_mobilenet(
    num_classes: int,
    frames: int,
    *,
    zero_gamma: bool = False,
    dropout: float = 0.5,
    width: int = 32,
    channels_last: bool = False,
) -> nn.Module:
    return FrameMobileNet(
        num_classes, frames, zero_gamma=zero_gamma, dropout=dropout, width=width, channels_last=channels_last
    )


def _tsm_mobilenet(
    num_classes: int,
    frames: int,
    *,
    shift_fraction: int = 8,
    causal: bool = False,
    zero_gamma: bool = False,
    dropout: float = 0.5,
    width: int = 32,
    channels_last: bool = False,
) -> nn.Module:
    return FrameMobileNet(
        num_classes, frames, shift_fraction=shift_fraction, causal=causal, zero_gamma=zero_gamma, dropout=dropout,
        width=width, channels_last=channels_last,
    )  # fmt: skip


def _i3d(
    num_classes: int,
    frames: int,
    *,
    depth: int,
    kernel: Kernel,
    inflated_blocks: InflatedBlocks = "all",
    stem_taps: int = 5,
    temporal_stride: int = 1,
    causal: bool = False,
    zero_gamma: bool = False,
    dropout: float = 0.5,
    width: int = 64,
    channels_last: bool = False,
) -> nn.Module:
    return InflatedResNet(
        depth, num_classes, frames, kernel=kernel, inflated_blocks=inflated_blocks, stem_taps=stem_taps,
        temporal_stride=temporal_stride, causal=causal, zero_gamma=zero_gamma, dropout=dropout, width=width,
        channels_last=channels_last,
    )  # fmt: skip


def _slowonly(
    num_classes: int,
    frames: int,
    *,
    depth: int,
    causal: bool = False,
    zero_gamma: bool = False,
    dropout: float = 0.5,
    width: int = 64,
    channels_last: bool = False,
) -> nn.Module:
    return InflatedResNet(
        depth, num_classes, frames, kernel="3x1x1", inflated_blocks="late", stem_taps=1, causal=causal,
        zero_gamma=zero_gamma, dropout=dropout, width=width, channels_last=channels_last,
    )  # fmt: skip


_DEEP = [depth for depth in BLOCKS_PER_LAYER if depth >= 50]

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"tsn_resnet{depth}": partial(_tsn_resnet, depth=depth) for depth in BLOCKS_PER_LAYER},
    **{f"tsm_resnet{depth}": partial(_tsm_resnet, depth=depth) for depth in BLOCKS_PER_LAYER},
    "tsn_mobilenetv2": _tsn_mobilenet,
    "tsm_mobilenetv2": _tsm_mobilenet,
    **{f"i3d_resnet{depth}": partial(_i3d, depth=depth, kernel="3x1x1") for depth in _DEEP},
    **{f"i3d_resnet{depth}_3x3x3": partial(_i3d, depth=depth, kernel="3x3x3") for depth in _DEEP},
    **{f"slowonly_resnet{depth}": partial(_slowonly, depth=depth) for depth in _DEEP},
}


def _check_values(values: dict[str, Any], frames: int) -> None:
    _require(_is_whole(values["width"], 1), f"width = {values['width']!r}", "a whole number from 1 on")
    for option, value in values.items():
        what = f"{option} = {value!r}"
        match option:
            case "width":
                pass
            case "dropout":
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                _require(is_number and 0 <= value < 1, what, "a number from 0 to below 1")
            case "shift_fraction":
                _require(
                    _is_whole(value, 2) and value <= values["width"],
                    what,
                    f"a whole number from 2 to the width, {values['width']} (one channel in so many moves each way)",
                )
            case "shift_place":
                _require(value in ("blockres", "block"), what, "blockres or block")
            case "inflated_blocks":
                _require(value in ("all", "alternate", "late"), what, "all, alternate or late")
            case "stem_taps":
                _require(_is_whole(value, 1) and value % 2 == 1, what, "an odd whole number")
            case "temporal_stride":
                choices = ", ".join(str(choice) for choice in TEMPORAL_STRIDES)
                _require(_is_whole(value, 1) and value in TEMPORAL_STRIDES, what, f"one of {choices}")
            case _:
                _require(isinstance(value, bool), what, "true or false")
    if values.get("temporal_pool"):
        _require(frames % 2 == 0, f"temporal_pool = True with {frames} frames", "an even number of frames")
        _require(not values.get("causal"), "causal = True with temporal_pool", "one of the two: a pool looks ahead")
    if values.get("temporal_stride", 1) > 1:
        _require(not values["causal"], "causal = True with a temporal_stride", "stride 1: its pools look ahead")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(holds: bool, what: str, expected: str) -> None:
    if not holds:
        raise InputError(f"model option {what}: expected {expected}")
