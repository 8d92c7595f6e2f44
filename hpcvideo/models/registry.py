"""Every model by its name: which there are, which options each takes, and how one is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from hpcvideo.errors import InputError
from hpcvideo.models.resnet import BLOCKS_PER_LAYER, FrameResNet, ShiftPlace


def create_model(name: str, num_classes: int, frames: int, **options: Any) -> nn.Module:
    """Make the model `name`, freshly initialised from torch's random state.

    The model maps clips [batch, frames, 3, height, width] float to logits [batch, num_classes], says `frames`, and
    offers `layers()`, its parts in execution order. Options left out have their defaults (`model_options`).
    Raises InputError for a name, an option or a value that does not exist, with those that do.
    """
    known = model_options(name)
    for option in options:
        if option not in known:
            raise InputError(f"model {name} has no option {option!r}; it has: {', '.join(known)}")
    _require(_is_whole(num_classes, 1), f"num_classes = {num_classes!r}", "a whole number from 1 on")
    _require(_is_whole(frames, 1), f"frames = {frames!r}", "a whole number from 1 on")
    return _BUILDERS[name](num_classes, frames, **options)


def known_models() -> tuple[str, ...]:
    """The names that `create_model` takes."""
    return tuple(_BUILDERS)


def model_options(name: str) -> dict[str, Any]:
    """Option -> default value of the model `name`. Raises InputError for an unknown name."""
    if name not in _BUILDERS:
        raise InputError(f"there is no model {name!r}; there are: {', '.join(known_models())}")
    parameters = inspect.signature(_BUILDERS[name]).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "depth"
    }


def _tsn(num_classes: int, frames: int, *, depth: int, dropout: float = 0.5, width: int = 64) -> nn.Module:
    _check_dropout_and_width(dropout, width)
    return FrameResNet(depth, num_classes, frames, dropout=dropout, width=width)


def _tsm(
    num_classes: int,
    frames: int,
    *,
    depth: int,
    shift_fraction: int = 8,
    shift_place: ShiftPlace = "blockres",
    dropout: float = 0.5,
    width: int = 64,
) -> nn.Module:
    _check_dropout_and_width(dropout, width)
    _require(
        _is_whole(shift_fraction, 2) and shift_fraction <= width,
        f"shift_fraction = {shift_fraction!r}",
        f"a whole number from 2 to the width, {width} (one channel in so many moves each way)",
    )
    _require(shift_place in ("blockres", "block"), f"shift_place = {shift_place!r}", "blockres or block")
    return FrameResNet(
        depth,
        num_classes,
        frames,
        shift_fraction=shift_fraction,
        shift_place=shift_place,
        dropout=dropout,
        width=width,
    )


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    f"{family}_resnet{depth}": partial(build, depth=depth)
    for family, build in (("tsn", _tsn), ("tsm", _tsm))
    for depth in BLOCKS_PER_LAYER
}


def _check_dropout_and_width(dropout: float, width: int) -> None:
    is_number = isinstance(dropout, int | float) and not isinstance(dropout, bool)
    _require(is_number and 0 <= dropout < 1, f"dropout = {dropout!r}", "a number from 0 to below 1")
    _require(_is_whole(width, 1), f"width = {width!r}", "a whole number from 1 on")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(holds: bool, what: str, expected: str) -> None:
    if not holds:
        raise InputError(f"model option {what}: expected {expected}")
