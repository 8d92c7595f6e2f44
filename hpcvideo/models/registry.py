"""Every model by its name: which there are, which options each takes, and how one is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, get_args

from torch import nn

from hpcvideo.errors import InputError
from hpcvideo.models.action_detector import ActionDetector
from hpcvideo.models.action_detector_network import ActionDetectionNetwork, FeatureDetectionNetwork
from hpcvideo.models.anchor_sampling import Sampling
from hpcvideo.models.inflated import TEMPORAL_STRIDES, InflatedResNet
from hpcvideo.models.mobilenet import FrameMobileNet
from hpcvideo.models.progressive_network import HEAD_STATES, TIME_POOLS
from hpcvideo.models.progressive_resnet import ProgressiveResNet
from hpcvideo.models.progressive_seam import STATE_PLACES
from hpcvideo.models.progressive_slowfast import ProgressiveSlowFast
from hpcvideo.models.progressive_state import CARRY_KINDS
from hpcvideo.models.progressive_tsm import ProgressiveTsm
from hpcvideo.models.progressive_x3d import SQUEEZES, ProgressiveX3d
from hpcvideo.models.r2plus1d import R2Plus1D
from hpcvideo.models.resnet import BLOCKS_PER_LAYER, FrameResNet
from hpcvideo.models.snippet_encoder import SnippetEncoder
from hpcvideo.models.snippet_network import SnippetClassifier
from hpcvideo.models.unit_builders import unit_resnet, unit_vgg
from hpcvideo.models.unit_predictor import unit_predictor


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
    entry = _ENTRIES[name]
    return entry.network(num_classes=num_classes, frames=frames, **entry.fixed, **values)


def known_models() -> tuple[str, ...]:
    """The names that `create_model` takes."""
    return tuple(_ENTRIES)


def model_options(name: str) -> dict[str, Any]:
    """Option -> default value of the model `name`. Raises InputError for an unknown name."""
    if name not in _ENTRIES:
        raise InputError(f"there is no model {name!r}; there are: {', '.join(known_models())}")
    return _ENTRIES[name].default_values()


_PUBLISHED_SHIFT_FRACTION = 8
_COMMON = ("zero_gamma", "dropout", "width", "channels_last")
_SHIFT = ("shift_fraction", "shift_place", "causal")
_INFLATION = ("inflated_blocks", "stem_taps", "temporal_stride", "causal")
_ENCODING = ("snippets", "encoder", "encoder_options", "frozen_stages", "norm_eval")
_DETECTOR = ("width", "longest", "proposals", "proposal_sampling", "roi_bins", "roi_aligned", "hidden", "dropout")
_UNITS = ("norm", "skips", "dropout", "width")
_CARRIED = ("carry", "momentum", "head_state", "time_pool")
_FRAGMENTS = ("causal", "state", "overlap", *_CARRIED)
_DEEP = [depth for depth in BLOCKS_PER_LAYER if depth >= 50]


@dataclass(frozen=True)
class _Entry:
    """A network's class, arguments that the name fixes, which options it takes, and defaults other than the class's."""

    network: Callable[..., nn.Module]
    fixed: Mapping[str, Any]
    options: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def default_values(self) -> dict[str, Any]:
        parameters = inspect.signature(self.network).parameters
        own = {option: parameters[option].default for option in self.options if option in parameters}
        return {option: self.defaults.get(option, own.get(option)) for option in self.options}


def _entries() -> dict[str, _Entry]:
    pooled = ("temporal_pool", *_COMMON)
    shifted = {"shift_fraction": _PUBLISHED_SHIFT_FRACTION}
    entries = {f"tsn_resnet{depth}": _Entry(FrameResNet, {"depth": depth}, pooled) for depth in BLOCKS_PER_LAYER}
    for depth in BLOCKS_PER_LAYER:
        entries[f"tsm_resnet{depth}"] = _Entry(FrameResNet, {"depth": depth}, (*_SHIFT, *pooled), shifted)
    entries["tsn_mobilenetv2"] = _Entry(FrameMobileNet, {}, _COMMON)
    entries["tsm_mobilenetv2"] = _Entry(FrameMobileNet, {}, ("shift_fraction", "causal", *_COMMON), shifted)
    for ending, kernel in (("", "3x1x1"), ("_3x3x3", "3x3x3")):
        for depth in _DEEP:
            fixed = {"depth": depth, "kernel": kernel}
            entries[f"i3d_resnet{depth}{ending}"] = _Entry(InflatedResNet, fixed, (*_INFLATION, *_COMMON))
    for depth in _DEEP:
        slow = {"depth": depth, "kernel": "3x1x1", "inflated_blocks": "late", "stem_taps": 1}
        entries[f"slowonly_resnet{depth}"] = _Entry(InflatedResNet, slow, ("causal", *_COMMON))
    entries |= _progressive_entries(shifted)
    split = ("zero_gamma", "dropout", "width")
    entries["r2plus1d_18"] = _Entry(R2Plus1D, {"depth": 18, "middle": "block"}, split)
    entries["r2plus1d_34"] = _Entry(R2Plus1D, {"depth": 34, "middle": "convolution", "norm_eps": 1e-3}, split)
    entries["snippet_classifier"] = _Entry(_snippet_classifier, {}, (*_ENCODING, "dropout"))
    detector = {name: inspect.signature(ActionDetector).parameters[name].default for name in _DETECTOR}
    entries["etad"] = _Entry(_etad, {}, (*_ENCODING, *_DETECTOR), detector)
    entries["etad_features"] = _Entry(FeatureDetectionNetwork, {}, ("channels", *_DETECTOR), detector)
    entries["unit_vgg"] = _Entry(unit_vgg, {}, ("convolutions", "dense", "pools", *_UNITS))
    entries["unit_predictor"] = _Entry(unit_predictor, {}, ("levels", *_UNITS))
    for depth in (18, 50):
        cut = ("cut", "zero_gamma", *_UNITS)
        entries[f"unit_resnet{depth}"] = _Entry(unit_resnet, {"depth": depth}, cut)
        entries[f"unit_tsm_resnet{depth}"] = _Entry(unit_resnet, {"depth": depth}, ("shift_fraction", *cut), shifted)
    return entries


def _progressive_entries(shifted: Mapping[str, Any]) -> dict[str, _Entry]:
    entries = {}
    inflation = ("inflated_blocks", "stem_taps", *_FRAGMENTS, *_COMMON)
    for number in (26, *_DEEP):  # 26: two bottlenecks a layer, as ResNet-18 has blocks; for small experiments
        depth = {"depth": 18 if number == 26 else number}
        slow = {**depth, "kernel": "3x1x1", "inflated_blocks": "late", "stem_taps": 1}
        entries[f"progressive_slowonly_resnet{number}"] = _Entry(ProgressiveResNet, slow, (*_FRAGMENTS, *_COMMON))
        entries[f"progressive_slowfast_resnet{number}"] = _Entry(
            ProgressiveSlowFast, depth, ("alpha", "fast_fraction", *_FRAGMENTS, *_COMMON)
        )
        for ending, kernel in (("", "3x1x1"), ("_3x3x3", "3x3x3")):
            fixed = {**depth, "kernel": kernel}
            entries[f"progressive_i3d_resnet{number}{ending}"] = _Entry(ProgressiveResNet, fixed, inflation)
    for name in ("progressive_x3d_s", "progressive_x3d_m"):
        entries[name] = _Entry(ProgressiveX3d, {}, ("squeeze", *_FRAGMENTS, *_COMMON))
    for number in (18, *_DEEP):
        shift = ("shift_fraction", "causal", *_CARRIED, *_COMMON)
        entries[f"progressive_tsm_resnet{number}"] = _Entry(ProgressiveTsm, {"depth": number}, shift, shifted)
    return entries


def snippet_encoder(
    frames: int, snippets: int, encoder: str, encoder_options: Mapping[str, Any], frozen_stages: int, norm_eval: bool
) -> SnippetEncoder:
    """The encoder of a network for `snippets` snippets of `frames` frames together, from its options.

    Raises InputError where the frames do not divide or there is no such network or option.
    """
    _require(frames % snippets == 0, f"snippets = {snippets} with {frames} frames", "a number that divides the frames")
    network = create_model(encoder, 1, frames // snippets, **{"dropout": 0.0, **encoder_options})
    return SnippetEncoder(network, frozen_stages, norm_eval)


def _snippet_classifier(
    num_classes: int, frames: int, *, snippets: int = 4, encoder: str = "tsm_resnet18",
    encoder_options: Mapping[str, Any] = MappingProxyType({}), frozen_stages: int = 0, norm_eval: bool = True,
    dropout: float = 0.5,
) -> nn.Module:  # fmt: skip
    made = snippet_encoder(frames, snippets, encoder, encoder_options, frozen_stages, norm_eval)
    return SnippetClassifier(made, num_classes, frames, snippets, dropout)


def _etad(
    num_classes: int, frames: int, *, snippets: int = 4, encoder: str = "r2plus1d_34",
    encoder_options: Mapping[str, Any] = MappingProxyType({}), frozen_stages: int = 2, norm_eval: bool = True,
    **detector: Any,
) -> nn.Module:  # fmt: skip
    made = snippet_encoder(frames, snippets, encoder, encoder_options, frozen_stages, norm_eval)
    return ActionDetectionNetwork(made, num_classes, frames, snippets, **detector)


_ENTRIES = _entries()


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "state": STATE_PLACES,
    "carry": CARRY_KINDS,
    "head_state": HEAD_STATES,
    "time_pool": TIME_POOLS,
    "squeeze": SQUEEZES,
    "proposal_sampling": get_args(Sampling),
}


def _check_values(values: dict[str, Any], frames: int) -> None:
    if "width" in values:
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
            case "state" | "carry" | "head_state" | "time_pool" | "squeeze" | "proposal_sampling":
                _require(value in _CHOICES[option], what, f"one of {', '.join(_CHOICES[option])}")
            case "momentum":
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                _require(is_number and 0 <= value < 1, what, "a number from 0 to below 1")
            case "overlap":
                _require(value is None or _is_whole(value, 1), what, "a whole number from 1 on, or none")
            case "alpha":
                _require(_is_whole(value, 1), what, "a whole number from 1 on")
            case "fast_fraction":
                width = values["width"]
                _require(_is_whole(value, 1) and value <= width, what, f"a whole number from 1 to the width, {width}")
            case "levels":
                _require(_is_whole(value, 1), what, "a whole number from 1 on")
            case "convolutions":
                _require(_is_whole(value, 1), what, "a whole number from 1 on")
            case "dense":
                _require(_is_whole(value, 0), what, "a whole number from 0 on")
            case "pools":
                most = values["convolutions"]
                _require(_is_whole(value, 0) and value <= most, what, f"0 to {most}, the number of convolutions")
            case "norm":
                _require(value in ("group", "batch", "none"), what, "group, batch or none")
            case "cut":
                _require(value in ("layers", "blocks"), what, "layers or blocks")
            case "skips":
                _require(isinstance(value, str | list | tuple), what, "none, `over N`, or a list of `SOURCE to TARGET`")
            case "snippets":
                _require(_is_whole(value, 1), what, "a whole number from 1 on")
            case "frozen_stages":
                _require(_is_whole(value, 0) and value <= 4, what, "0 to 4")
            case "encoder":
                _require(isinstance(value, str), what, "the name of a model")
            case "encoder_options":
                _require(isinstance(value, Mapping), what, "options of the encoder by name")
            case "longest":
                _require(value is None or _is_whole(value, 1), what, "a whole number of bins, or none for all")
            case "proposals":
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                _require(is_number and 0 < value <= 1, what, "a share above 0, at most 1")
            case "roi_bins":
                _require(_is_whole(value, 4) and value % 4 == 0, what, "a multiple of 4")
            case "hidden" | "channels":
                _require(_is_whole(value, 1), what, "a whole number from 1 on")
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
    if "proposals" in values:
        _require(values["width"] % 8 == 0, f"width = {values['width']!r} of a detector", "a multiple of 8")
    if values.get("squeeze") == "clip":
        _require(not values["causal"], "causal = True with squeeze = 'clip'", "squeeze: frame, which does not look ahead")
    if values.get("temporal_stride", 1) > 1:
        _require(not values["causal"], "causal = True with a temporal_stride", "stride 1: its pools look ahead")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(holds: bool, what: str, expected: str) -> None:
    if not holds:
        raise InputError(f"model option {what}: expected {expected}")
