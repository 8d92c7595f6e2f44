"""Where a clip is cropped and whether it is mirrored: boxes chosen from sizes and a random stream, no pixel touched here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from hpcvideo.distributed.keyed_random import KeyedStream

SCALES = (1.0, 0.875, 0.75, 0.66)
TEST_CROPS = (1, 3, 10)


@dataclass(frozen=True)
class CropBox:
    """A rectangle of a frame in pixels, and whether its content is mirrored left to right."""

    left: int
    top: int
    width: int
    height: int
    mirrored: bool = False

    def cut(self, frame: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Crop, then resize bilinearly into `out`, C-contiguous uint8 [size, size, 3].

        Crop before resize: fewer pixels to touch. OpenCV writes straight into `out` and mirrors there, while it lies in the
        cache; a mirrored copy by NumPy, pixel by pixel, would take longer than the resize.
        """
        piece = frame[self.top : self.top + self.height, self.left : self.left + self.width]
        if piece.shape == out.shape:
            out[...] = piece
        else:
            cv2.resize(piece, (out.shape[1], out.shape[0]), dst=out, interpolation=cv2.INTER_LINEAR)
        if self.mirrored:
            cv2.flip(out, 1, dst=out)


def center_crop(width: int, height: int, size: int, short_side: int) -> CropBox:
    """The middle size x size pixels of the frame as it would be with `short_side`; in the frame's own pixels."""
    side = _side(width, height, size, short_side)
    return CropBox((width - side) // 2, (height - side) // 2, side, side)


def scoring_crop(width: int, height: int, size: int, short_side: int, crops: int, crop: int) -> CropBox:
    """Crop number `crop` of the `crops` with which a video is scored, one of TEST_CROPS.

    1: the centre. 3: both ends and the middle of the longer side (MIT's GroupFullResSample takes left, right and centre of
    wide frames; along the longer side, tall frames give three views too). 10: four corners and the centre, each plain, then
    mirrored (GroupOverSample). Raises ValueError for another number.
    """
    if crops not in TEST_CROPS or not 0 <= crop < crops:
        raise ValueError(f"crop {crop} of {crops}: a video is scored with {TEST_CROPS} crops")
    if crops == 1:
        return center_crop(width, height, size, short_side)
    side = _side(width, height, size, short_side)
    step_x, step_y = (width - side) // 4, (height - side) // 4
    if crops == 3:
        along = (0, 4, 2)[crop]
        x, y = (along, 2) if width >= height else (2, along)
        return CropBox(x * step_x, y * step_y, side, side)
    x, y = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))[crop // 2]
    return CropBox(x * step_x, y * step_y, side, side, mirrored=crop % 2 == 1)


def multi_scale_crop(width: int, height: int, size: int, stream: KeyedStream) -> CropBox:
    """TSM's GroupMultiScaleCrop: side lengths from four scales of the short side, one of 13 fixed places.

    Width and height scale differ by at most one step; a side within 2 pixels of `size` becomes `size`
    (reference implementation's rule, arXiv 1811.08383).
    """
    pairs = _crop_sizes(min(width, height), size)
    crop_width, crop_height = pairs[stream.integer(len(pairs))]
    step_x, step_y = (width - crop_width) // 4, (height - crop_height) // 4
    x, y = _PLACES[stream.integer(len(_PLACES))]
    return CropBox(x * step_x, y * step_y, crop_width, crop_height)


def mirror(box: CropBox, stream: KeyedStream) -> CropBox:
    """The same box, mirrored in half of all draws."""
    return replace(box, mirrored=stream.uniform() < 0.5)


_PLACES = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))


def _side(width: int, height: int, size: int, short_side: int) -> int:
    return max(1, round(min(width, height) * size / short_side))


@lru_cache(maxsize=1024)
def _crop_sizes(short: int, size: int) -> tuple[tuple[int, int], ...]:
    """(width, height) of each multi-scale crop of a frame with this short side."""
    sides = [int(short * scale) for scale in SCALES]
    sides = [min(size, short) if abs(side - size) < 3 else side for side in sides]
    return tuple((w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1)
