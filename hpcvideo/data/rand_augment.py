"""RandAugment (Cubuk et al., arXiv 1909.13719): random image operations of one strength, alike on all frames of a clip.

The fourteen operations and the scale of magnitudes (0 to 10) are the paper's; Pillow carries them out. Strengths that the
paper leaves to its code: rotation up to 30 degrees, shear up to 0.3, translation up to 0.45 of the width, enhancement
factors 0.1 to 1.9, posterising down to 4 bits. Which way a signed operation goes is drawn with equal chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from hpcvideo.distributed.keyed_random import KeyedStream

Operation = Callable[[Image.Image], Image.Image]

LARGEST_MAGNITUDE = 10
NAMES = (
    "identity", "auto_contrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast", "brightness",
    "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip
_GREY = (128, 128, 128)  # what comes into view at the borders
_ENHANCERS: dict[str, Callable[[Image.Image], ImageEnhance._Enhance]] = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}


@dataclass(frozen=True)
class RandAugment:
    """`operations` a clip, each of strength `magnitude` (0 none to 10 strongest)."""

    operations: int = 2
    magnitude: float = 9.0

    def draw(self, stream: KeyedStream) -> list[tuple[str, int]]:
        """The clip's operations as (name, direction 1 or -1); independent draws, so that one may come twice."""
        return [
            (NAMES[stream.integer(len(NAMES))], 1 if stream.uniform() < 0.5 else -1) for _ in range(self.operations)
        ]

    def apply(self, drawn: list[tuple[str, int]], frames: NDArray[np.uint8]) -> None:
        """Change the frames, uint8 [frames, height, width, 3], in place."""
        width = frames.shape[2]
        steps = [operation(name, self.magnitude * sign / LARGEST_MAGNITUDE, width) for name, sign in drawn]
        for frame in frames:
            image = Image.fromarray(frame)
            for step in steps:
                image = step(image)
            frame[...] = np.asarray(image)


def operation(name: str, strength: float, width: int) -> Operation:
    """One of NAMES at a strength in -1 .. 1 for pictures this many pixels wide; the sign counts where there are two ways.

    Raises ValueError for another name.
    """
    share = abs(strength)
    if name == "identity":
        return lambda image: image
    if name == "auto_contrast":
        return lambda image: ImageOps.autocontrast(image)
    if name == "equalize":
        return lambda image: ImageOps.equalize(image)
    if name == "solarize":
        return lambda image: ImageOps.solarize(image, threshold=round(256 * (1 - share)))
    if name == "posterize":
        return lambda image: ImageOps.posterize(image, 8 - round(4 * share))
    if name in _ENHANCERS:
        return lambda image: _ENHANCERS[name](image).enhance(1 + 0.9 * strength)
    if name == "rotate":
        return lambda image: image.rotate(30 * strength, resample=Image.Resampling.BILINEAR, fillcolor=_GREY)
    slant, shift = 0.3 * strength, round(0.45 * strength * width)
    matrices = {
        "shear_x": (1, slant, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, slant, 1, 0),
        "translate_x": (1, 0, shift, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, shift),
    }
    if name not in matrices:
        raise ValueError(f"RandAugment has no operation {name!r}; it has {', '.join(NAMES)}")
    return lambda image: image.transform(
        image.size, Image.Transform.AFFINE, matrices[name], resample=Image.Resampling.BILINEAR, fillcolor=_GREY
    )
