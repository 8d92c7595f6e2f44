"""The work of one clip as the peers do it: 8 of all frames, one random crop and flip for all of them, 224 x 224.

Frames and crops follow the distributions of TSM (arXiv 1811.08383, public code), as those of hpcvideo.data do.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image

FRAMES, SIZE = 8, 224
_SCALES = (1.0, 0.875, 0.75, 0.66)
_PLACES = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))

cv2.setNumThreads(1)


def wanted_frames(num_frames: int) -> list[int]:
    """A random frame of each of FRAMES equal segments."""
    length = num_frames // FRAMES
    return [segment * length + random.randrange(length) for segment in range(FRAMES)]


def crop(width: int, height: int) -> tuple[int, int, int, int, bool]:
    """(left, top, width, height, mirrored) of the 13-position multi-scale crop."""
    sides = [int(min(width, height) * scale) for scale in _SCALES]
    sides = [SIZE if abs(side - SIZE) < 3 else side for side in sides]
    row = random.randrange(4)
    wide, high = sides[min(3, max(0, row + random.choice((-1, 0, 1))))], sides[row]
    x, y = random.choice(_PLACES)
    return x * ((width - wide) // 4), y * ((height - high) // 4), wide, high, random.random() < 0.5


def pack(jpegs: Sequence[bytes]) -> bytes:
    """JPEGs back to back behind their lengths: what `unpack` cuts again without a copy."""
    return np.array([len(jpegs), *map(len, jpegs)], "<u4").tobytes() + b"".join(jpegs)


def unpack(packed: bytes) -> list[memoryview]:
    """Views of the JPEGs of `pack`."""
    view = memoryview(packed)
    count = int(np.frombuffer(view[:4], "<u4")[0])
    ends = (4 * (count + 1) + np.cumsum(np.frombuffer(view[4 : 4 * (count + 1)], "<u4"))).tolist()
    return [view[begin:end] for begin, end in zip([4 * (count + 1), *ends], ends, strict=False)]


class FastClips:
    """Decodes clips straight into their batch: one reused frame and simplejpeg, crop before resize, no copy of a clip."""

    def __init__(self) -> None:
        self._frame = np.empty((0, 0, 3), np.uint8)
        self._resized = np.empty((SIZE, SIZE, 3), np.uint8)

    def fill(self, jpegs: Sequence[bytes | memoryview], width: int, height: int, out: np.ndarray) -> None:
        """Decode into `out`, uint8 [frames, SIZE, SIZE, 3]."""
        if self._frame.shape[:2] != (height, width):
            self._frame = np.empty((height, width, 3), np.uint8)
        box = crop(width, height)
        for jpeg, place in zip(jpegs, out, strict=True):
            simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=self._frame)
            cut(self._frame, box, place, self._resized)


def cut(frame: np.ndarray, box: tuple[int, int, int, int, bool], out: np.ndarray, scratch: np.ndarray) -> None:
    """Crop, resize and mirror one frame, uint8 [height, width, 3], into `out`, uint8 [SIZE, SIZE, 3]."""
    left, top, wide, high, mirrored = box
    piece = frame[top : top + high, left : left + wide]
    if mirrored:
        cv2.flip(cv2.resize(piece, (SIZE, SIZE), dst=scratch, interpolation=cv2.INTER_LINEAR), 1, dst=out)
    else:
        cv2.resize(piece, (SIZE, SIZE), dst=out, interpolation=cv2.INTER_LINEAR)


def shared_batch(clips: int) -> torch.Tensor:
    """Uninitialised uint8 [clips, FRAMES, SIZE, SIZE, 3] in shared memory: a DataLoader's worker hands it over uncopied."""
    shape = (clips, FRAMES, SIZE, SIZE, 3)
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def pillow_clip(images: Sequence[Image.Image]) -> torch.Tensor:
    """The clip of JPEG images that Pillow has opened, uint8 [frames, SIZE, SIZE, 3]."""
    left, top, wide, high, mirrored = crop(*images[0].size)
    pieces = []
    for image in images:
        piece = image.convert("RGB").crop((left, top, left + wide, top + high))
        piece = piece.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pieces.append(np.asarray(piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else piece))
    return torch.from_numpy(np.stack(pieces))


def open_jpegs(jpegs: Sequence[bytes]) -> list[Image.Image]:
    """Pillow's lazy images of JPEG files in memory."""
    return [Image.open(io.BytesIO(jpeg)) for jpeg in jpegs]
