"""The names that other programs give to the weights of these networks, turned into torchvision's, which are ours.

| program | example |
|---|---|
| torchvision | layer1.0.conv1.weight, layer1.0.downsample.0.weight, fc.bias; features.2.conv.0.0.weight, classifier.1.bias |
| public TSM code | module.base_model.layer1.0.conv1.net.weight, module.new_fc.weight; base_model.features.2.conv.0.weight |
| mmaction2 | backbone.layer1.0.conv1.conv.net.weight, backbone.layer1.0.conv1.bn.weight, cls_head.fc_cls.weight |

`net` marks what a shift wraps: a block's first convolution, or the whole block; around layer2 it is the temporal pool.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from hpcvideo.errors import InputError

Style = Literal["torchvision", "tsm", "mmaction2"]

_HEADS = ("new_fc.", "classifier.1.", "classifier.", "fc.")
_FLAT_MOBILENET = re.compile(r"^features\.(\d+)\.conv\.([0-7])\.(\w+)$")
# Places in the flat sequence of a MobileNet block of the public TSM code -> torchvision's nested ones.
_WIDENING = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
_NOT_WIDENING = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}


@dataclass(frozen=True)
class NamedWeights:
    """A checkpoint under our names. `sources`: our name -> its name in the file.

    shifted: blocks that the file's names mark as shifted; place: how; pooled: whether they mark a temporal pool. All
    empty for torchvision's names, which cannot tell.
    """

    style: Style
    tensors: dict[str, Tensor]
    sources: dict[str, str]
    shifted: frozenset[str]
    place: str | None
    pooled: bool


def rename(state: Mapping[str, Tensor]) -> NamedWeights:
    """Bring a state dict under our names. Names that none of the programs uses stay, so that they show up as unused.

    Raises InputError for non-local blocks, which no model here has, and where two names mean the same weight.
    """
    plain = {name: _without_parallel_prefix(name) for name in state}
    style = _style(plain.values())
    tensors: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    shifted: set[str] = set()
    places: set[str] = set()
    pooled = False
    flat_mobilenet = any(re.match(r"^(base_model\.)?features\.2\.conv\.7\.", name) for name in plain.values())
    for original, name in plain.items():
        if re.search(r"\.(nl|non_local_block)\.", name):
            raise InputError(f"{original}: the checkpoint has non-local blocks, which no model here has")
        name = name.removeprefix({"tsm": "base_model.", "mmaction2": "backbone."}.get(style, ""))
        if name.startswith("layer2.net."):
            pooled, name = True, name.replace(".net.", ".", 1)
        if mark := re.match(r"^(layer\d\.\d+|features\.\d+)\.(.*\.)?net\.", name):
            shifted.add(mark[1])
            places.add("blockres" if mark[2] else "block")
        name = name.replace(".net.", ".")
        if name.startswith(("features.stem.", "features.layer")):  # TSP's R(2+1)D
            name = name.removeprefix("features.")
        if style == "mmaction2":
            name = _from_mmaction2(name)
        elif flat_mobilenet:
            name = _from_flat_mobilenet(name)
        for head in _HEADS:
            if name.startswith(head):
                name = "fc." + name.removeprefix(head)
                break
        if name in tensors:
            raise InputError(f"{original} and {sources[name]} in the checkpoint both mean {name}; remove one")
        tensors[name], sources[name] = state[original], original
    if len(places) > 1:
        raise InputError("the checkpoint marks some blocks as shifted whole and others in their first convolution only")
    return NamedWeights(style, tensors, sources, frozenset(shifted), places.pop() if places else None, pooled)


def _style(names: Collection[str]) -> Style:
    if any(name.startswith("backbone.") for name in names):
        return "mmaction2"
    if any(name.startswith(("base_model.", "new_fc.")) for name in names):
        return "tsm"
    return "torchvision"


def _without_parallel_prefix(name: str) -> str:
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _from_mmaction2(name: str) -> str:
    name = re.sub(r"^cls_head\.fc_cls\.", "fc.", name)
    name = re.sub(r"(^|\.)downsample\.conv\.", r"\1downsample.0.", name)
    name = re.sub(r"(^|\.)downsample\.bn\.", r"\1downsample.1.", name)
    name = re.sub(r"(^|\.)conv([123])\.conv\.", r"\1conv\2.", name)
    return re.sub(r"(^|\.)conv([123])\.bn\.", r"\1bn\2.", name)


def _from_flat_mobilenet(name: str) -> str:
    found = _FLAT_MOBILENET.match(name)
    if found is None:
        return name
    places = _NOT_WIDENING if found[1] == "1" else _WIDENING
    return f"features.{found[1]}.conv.{places[found[2]]}.{found[3]}" if found[2] in places else name
