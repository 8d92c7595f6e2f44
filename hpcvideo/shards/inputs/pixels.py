"""From a decoded frame to the JPEG that is stored: turned as it is to be shown, shrunk, in the colours that JPEG means.

Most videos are YUV 4:2:0, and so is the JPEG: their three planes are shrunk as they are, which is half the pixels of RGB,
and then brought from the video's matrix and range to those of JFIF (BT.601, full range; ITU-T T.871, 6). Anything else
(4:2:2, ten bits, odd sizes, rarer matrices) goes through RGB. FFmpeg's area scaler is as exact as OpenCV's and several
times as fast; told to be bit-exact, it gives the same bytes on any processor.
"""

from __future__ import annotations

from functools import cache

import av
import cv2
import numpy as np
import simplejpeg
from av.video.reformatter import Interpolation

from hpcvideo.shards.format import Encoding

_BT601, _BT709 = (0.299, 0.114), (0.2126, 0.0722)
# Of AVColorSpace (ITU-T H.273, table 4): 1 is BT.709, 5 and 6 are BT.601; FFmpeg takes 2, unspecified, as BT.601.
_MATRICES = {1: _BT709, 2: _BT601, 5: _BT601, 6: _BT601}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_AREA = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


def shown_size(frame: av.VideoFrame) -> tuple[int, int]:
    """(width, height) of a frame, turned as it is to be shown."""
    return _shown_size(frame, _quarter_turns(frame))


def stored_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) after shrinking to `short_side`, aspect kept, rounded to the nearest pixel, never enlarged."""
    shorter = min(width, height)
    if shorter <= short_side:
        return width, height
    scaled = [(2 * side * short_side + shorter) // (2 * shorter) for side in (width, height)]
    return scaled[0], scaled[1]


def frame_to_jpeg(frame: av.VideoFrame, encoding: Encoding) -> bytes:
    """The frame as it is stored. FFmpegError where its pixels cannot be converted."""
    pixel_format, turns = frame.format.name, _quarter_turns(frame)
    matrix = _MATRICES.get(frame.colorspace)
    if pixel_format not in ("yuv420p", "yuvj420p") or frame.width % 2 or frame.height % 2 or matrix is None:
        image = np.rot90(frame.to_ndarray(format="rgb24", threads=1), turns)
        return image_to_jpeg(np.ascontiguousarray(image), encoding)
    width, height = stored_size(*_shown_size(frame, turns), encoding.short_side)
    full_range = pixel_format == "yuvj420p" or frame.color_range == _FULL_RANGE
    planes = _to_jpeg_colours(_shrunk_planes(frame, width, height, turns), matrix, full_range)
    return planes_to_jpeg(*planes, encoding.quality)


def planes_to_jpeg(luma: np.ndarray, blue: np.ndarray, red: np.ndarray, quality: int) -> bytes:
    """Y uint8 [height, width], Cb and Cr uint8 [ceil(height / 2), ceil(width / 2)] of JFIF as a JPEG of 4:2:0."""
    height, width = luma.shape
    if height % 2 or width % 2:
        # TurboJPEG reads luma up to the next even width and height, whatever lies there: it must be ours, and the same
        # in every run.
        luma = cv2.copyMakeBorder(luma, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)[:height, :width]
    jpeg: bytes = simplejpeg.encode_jpeg_yuv_planes(luma, blue, red, quality)
    return jpeg


def image_to_jpeg(image: np.ndarray, encoding: Encoding) -> bytes:
    """An image, uint8 [height, width, 3] RGB, as it is stored."""
    image = _resize(image, stored_size(image.shape[1], image.shape[0], encoding.short_side))
    jpeg: bytes = simplejpeg.encode_jpeg(image, encoding.quality, colorspace="RGB", colorsubsampling="420")
    return jpeg


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise, as numpy.rot90 takes them."""
    return round(frame.rotation / 90) % 4


def _shown_size(frame: av.VideoFrame, turns: int) -> tuple[int, int]:
    return (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)


def _resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _shrunk_planes(frame: av.VideoFrame, width: int, height: int, turns: int) -> _Planes:
    """Y, Cb and Cr of a 4:2:0 frame, shrunk to the size at which it is stored and turned, colours as they are."""
    is_odd = bool(width % 2 or height % 2)
    unturned = (height, width) if turns % 2 else (width, height)
    if unturned != (frame.width, frame.height):
        # At an odd size half of it is not half of the picture: chroma would drift from luma, so it is halved below.
        pixel_format = frame.format.name.replace("420", "444") if is_odd else frame.format.name
        frame = frame.reformat(
            *unturned, pixel_format, interpolation=_AREA, src_color_range=frame.color_range,
            dst_color_range=frame.color_range, threads=1,
        )  # fmt: skip
    luma, blue, red = (_pixels_of(plane, turns) for plane in frame.planes)
    return (luma, _halve(blue), _halve(red)) if is_odd else (luma, blue, red)


def _pixels_of(plane: av.video.plane.VideoPlane, turns: int) -> np.ndarray:
    """uint8 [height, width] of one plane, turned as it is to be shown; a view where nothing turns."""
    height, width = plane.height, plane.width
    pixels: np.ndarray = np.ndarray((height, width), np.uint8, plane, strides=(plane.line_size, 1))
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _halve(pixels: np.ndarray) -> np.ndarray:
    """[height, width] -> [ceil(height / 2), ceil(width / 2)], each the mean of four."""
    height, width = pixels.shape
    even = cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return cv2.resize(even, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)


def _to_jpeg_colours(planes: _Planes, matrix: tuple[float, float], full_range: bool) -> _Planes:
    """Y uint8 [height, width], Cb and Cr uint8 [ceil(height / 2), ceil(width / 2)] of a video as JFIF's; the same shapes."""
    luma, blue, red = planes
    scale, offset = _linear_map(matrix, full_range)
    if matrix == _BT601:
        luma = cv2.addWeighted(luma, scale[0, 0], luma, 0.0, offset[0])
    else:
        # What colour adds to luma, 128 at zero, for uint8 has no sign.
        zero = 128 * (scale[0, 1] + scale[0, 2])
        added = cv2.addWeighted(blue, scale[0, 1], red, scale[0, 2], 128 - zero)
        added = cv2.resize(added, (2 * blue.shape[1], 2 * blue.shape[0]), interpolation=cv2.INTER_NEAREST)
        added = added[: luma.shape[0], : luma.shape[1]]
        luma = cv2.addWeighted(luma, scale[0, 0], added, 1.0, offset[0] + zero - 128)
    return (
        luma,
        cv2.addWeighted(blue, scale[1, 1], red, scale[1, 2], offset[1]),
        cv2.addWeighted(blue, scale[2, 1], red, scale[2, 2], offset[2]),
    )


@cache
def _linear_map(matrix: tuple[float, float], full_range: bool) -> tuple[np.ndarray, np.ndarray]:
    """(scale [3, 3], offset [3]) with JFIF's Y, Cb, Cr = scale @ the video's + offset, all in 8 bits, unrounded."""
    spans = np.array([255.0, 255.0, 255.0] if full_range else [219.0, 224.0, 224.0])
    zeros = np.array([0.0 if full_range else 16.0, 128.0, 128.0])
    scale = 255 * _from_rgb(*_BT601) @ np.linalg.inv(_from_rgb(*matrix)) / spans
    return scale, np.array([0.0, 128.0, 128.0]) - scale @ zeros


def _from_rgb(red: float, blue: float) -> np.ndarray:
    """float [3, 3]: Y, Cb, Cr of R, G, B, all of them 1 wide (H.273, 8.3), given what red and blue add to luma."""
    luma = np.array([red, 1 - red - blue, blue])
    return np.stack([luma, ([0, 0, 1] - luma) / (2 - 2 * blue), ([1, 0, 0] - luma) / (2 - 2 * red)])
