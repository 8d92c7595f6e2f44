"""An encoder-decoder of units, which gives a frame for a frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpcvideo.models.normalisation import IMAGENET_MEAN, IMAGENET_STD
from hpcvideo.models.unit import Joining, Norm, Unit, make_norm
from hpcvideo.models.unit_network import UnitNetwork
from hpcvideo.models.unit_skips import parse_skips

_COLOURS = 3


def unit_predictor(
    num_classes: int,
    frames: int,
    *,
    levels: int = 2,
    norm: Norm = "none",
    skips: str | Sequence[str] = "none",
    dropout: float = 0.0,
    width: int = 32,
) -> UnitNetwork:
    """Units `enc1` to `encL`, `decL` to `dec1` and `head`: each `enc` halves height and width, each `dec` doubles them.

    Output: brightnesses of a frame, [images, 3, height, width]; height and width must be multiples of 2^levels. num_classes
    has no meaning here: a frame has three colours. width: channels of `enc1`, `dec1` and `head`; every level further in has
    twice as many. dropout: on what the innermost `enc` gives. Pixels are folded into channels and back, so that nothing is
    lost where maps get smaller. skips: see unit_skips.parse_skips; maps are as large at `encN to decN` and `frames to head`.
    """
    inner = range(1, levels + 1)
    names = [*(f"enc{level}" for level in inner), *(f"dec{level}" for level in reversed(inner)), "head"]
    joining = Joining(parse_skips(skips, names))
    units: dict[str, Unit] = {}
    for level in inner:
        name, channels = f"enc{level}", width * 2 ** (level - 1)
        layer = nn.Conv2d(4 * joining.in_channels(name), channels, 3, padding=1)
        last = [nn.Dropout(dropout)] if level == levels else []
        body = nn.Sequential(nn.PixelUnshuffle(2), layer, make_norm(norm, channels), nn.ReLU(inplace=True), *last)
        units[name] = joining.make(name, body, channels)
    for level in reversed(inner):
        name, channels = f"dec{level}", width * 2 ** max(0, level - 2)
        layer = nn.Conv2d(joining.in_channels(name), 4 * channels, 3, padding=1)
        body = nn.Sequential(layer, nn.PixelShuffle(2), make_norm(norm, channels), nn.ReLU(inplace=True))
        units[name] = joining.make(name, body, channels)
    first = nn.Conv2d(joining.in_channels("head"), width, 3, padding=1)
    last_layer = nn.Conv2d(width, _COLOURS, 3, padding=1)
    body = nn.Sequential(first, nn.ReLU(inplace=True), last_layer, _Brightness())
    units["head"] = joining.make("head", body, _COLOURS)
    network = UnitNetwork(units, _COLOURS, frames, gives_frames=True, multiple=2**levels)
    _initialise(network, last_layer)
    return network


def _initialise(network: nn.Module, last: nn.Conv2d) -> None:
    """He's law, without its factor for a ReLU where none follows; no values on the meta device."""
    if last.weight.is_meta:
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear" if module is last else "relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)


class _Brightness(nn.Module):
    """From the numbers in which networks are given frames (hpcvideo.models.normalisation) to brightnesses from 0 to 1."""

    def forward(self, frames: Tensor) -> Tensor:
        """[images, 3, height, width], the same shape."""
        exact = torch.promote_types(frames.dtype, torch.float32)  # 16 bits do not hold 256 shades in this range
        mean, std = (
            torch.tensor(values, device=frames.device, dtype=exact).view(_COLOURS, 1, 1)
            for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        return frames.to(exact) * std + mean
