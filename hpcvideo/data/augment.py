"""Where a clip is cropped and whether it is mirrored: boxes chosen from sizes and a random stream, no pixel touched here."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hpcvideo.distributed.keyed_random import KeyedStream

SCALES = (1.0, 0.875, 0.75, 0.66)


@dataclass(frozen=True)
class CropBox:
    """A rectangle of a frame in pixels, and whether its content is mirrored left to right."""

    left: int
    top: int
    width: int
    height: int
    mirrored: bool = False

    def cut(self, frame: NDArray[np.uint8], size: int, out: NDArray[np.uint8]) -> None:
        """Crop, then resize bilinearly to [size, size, 3] uint8 into `out` (crop before resize: fewer pixels to touch)."""
        piece = frame[self.top : self.top + self.height, self.left : self.left + self.width]
        if piece.shape[:2] != (size, size):
            piece = cv2.resize(piece, (size, size), interpolation=cv2.INTER_LINEAR)
        out[...] = piece[:, ::-1] if self.mirrored else piece


def center_crop(width: int, height: int, size: int, short_side: int) -> CropBox:
    """The middle size x size pixels of the frame as it would be with `short_side`; in the frame's own pixels."""
    side = max(1, round(min(width, height) * size / short_side))
    return CropBox((width - side) // 2, (height - side) // 2, side, side)


def multi_scale_crop(width: int, height: int, size: int, stream: KeyedStream) -> CropBox:
    """TSM's GroupMultiScaleCrop: side lengths from four scales of the short side, one of 13 fixed places.

    Width and height scale differ by at most one step; a side within 2 pixels of `size` becomes `size`
    (reference implementation's rule, arXiv 1811.08383).
    """
    short = min(width, height)
    sides = [int(short * scale) for scale in SCALES]
    sides = [min(size, short) if abs(side - size) < 3 else side for side in sides]
    pairs = [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    crop_width, crop_height = pairs[stream.integer(len(pairs))]
    step_x, step_y = (width - crop_width) // 4, (height - crop_height) // 4
    places = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))
    x, y = places[stream.integer(len(places))]
    return CropBox(x * step_x, y * step_y, crop_width, crop_height)


def mirror(box: CropBox, stream: KeyedStream) -> CropBox:
    """The same box, mirrored in half of all draws."""
    return CropBox(box.left, box.top, box.width, box.height, mirrored=stream.uniform() < 0.5)
