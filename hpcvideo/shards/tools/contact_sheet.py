"""Frames of one video as a picture: a grid of tiles, each under its frame number and time."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards.frames import decode_frames, read_jpegs, source_rows
from hpcvideo.shards.tables import ShardTables

_TILE_PIXELS = 224
_GAP_PIXELS, _CAPTION_PIXELS, _TITLE_PIXELS = 8, 20, 34
_PAPER, _INK, _PALE_INK = (250, 250, 248), (27, 39, 51), (95, 107, 119)
_QUALITY = 90


def write_contact_sheet(tables: ShardTables, row: int, title: str, picture: Path, tiles: int = 16) -> None:
    """Write `tiles` evenly spaced frames of a video, row by row, as a PNG or JPEG picture.

    InputError where the picture's name has another suffix; OperationFailed where a frame is damaged or the picture
    cannot be written.
    """
    suffix = picture.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{picture}: a contact sheet is written as .png, .jpg or .jpeg")
    count = int(tables.num_frames[row])
    frames = np.unique(np.linspace(0, count - 1, min(tiles, count)).round().astype(int)).tolist()
    descriptor = os.open(tables.path, os.O_RDONLY)
    try:
        jpegs = read_jpegs(descriptor, tables, row, frames)
        numbers, seconds = source_rows(descriptor, tables, row)
    finally:
        os.close(descriptor)
    try:
        clip = decode_frames(jpegs, int(tables.height[row]), int(tables.width[row]))
    except ValueError as error:
        raise OperationFailed(f"{tables.path}: video {tables.id_of(row)!r} does not decode: {error}") from error
    captions = [caption(frame, int(numbers[frame]), float(seconds[frame])) for frame in frames]
    sheet = contact_sheet(clip, captions, title)
    try:
        picture.write_bytes(_picture_bytes(sheet, suffix))
    except OSError as error:
        raise OperationFailed(f"{picture}: {error.strerror}") from error


def caption(frame: int, source_frame: int, seconds: float) -> str:
    """What stands above a tile: the stored frame's number, the source's where it is another, the second it is shown at."""
    source = f" (of source {source_frame})" if source_frame != frame else ""
    return f"frame {frame}{source}" + ("" if math.isnan(seconds) else f"   {seconds:.2f} s")


def tile_places(count: int, height: int, width: int) -> tuple[int, int, list[tuple[int, int]]]:
    """(tile height, tile width, [(top, left) of each tile]): a near-square grid, each tile at most 224 pixels."""
    scale = min(1.0, _TILE_PIXELS / max(height, width))
    tile_height, tile_width = (max(1, round(side * scale)) for side in (height, width))
    columns = math.ceil(math.sqrt(count))
    step_down, step_right = tile_height + _CAPTION_PIXELS + _GAP_PIXELS, tile_width + _GAP_PIXELS
    top = _TITLE_PIXELS + _CAPTION_PIXELS
    places = [(top + index // columns * step_down, _GAP_PIXELS + index % columns * step_right) for index in range(count)]
    return tile_height, tile_width, places


def contact_sheet(clip: np.ndarray, captions: Sequence[str], title: str) -> np.ndarray:
    """Frames uint8 [n, height, width, 3] RGB, shrunk to their places (see tile_places), as one picture uint8 [h, w, 3]."""
    height, width, places = tile_places(len(clip), *clip.shape[1:3])
    size = max(top for top, _ in places) + height + _GAP_PIXELS, max(left for _, left in places) + width + _GAP_PIXELS
    sheet = np.full((*size, 3), _PAPER, np.uint8)
    _write(sheet, title, (_GAP_PIXELS, _TITLE_PIXELS - 12), 0.5, _INK, size[1] - 2 * _GAP_PIXELS)
    for frame, words, (top, left) in zip(clip, captions, places, strict=True):
        sheet[top : top + height, left : left + width] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        _write(sheet, words, (left, top - 6), 0.4, _PALE_INK, width)
    return sheet


def _write(sheet: np.ndarray, text: str, place: tuple[int, int], scale: float, ink: tuple[int, ...], width: int) -> None:
    """Put a line of text at (x, y) of its foot; cut, with dots, to a width in pixels."""
    text = text.encode("ascii", "replace").decode()  # the font has no other letters
    font = cv2.FONT_HERSHEY_SIMPLEX
    shown = text
    while len(shown) > 4 and cv2.getTextSize(shown, font, scale, 1)[0][0] > width:
        text = text[:-1]
        shown = f"{text}..."
    cv2.putText(sheet, shown, place, font, scale, ink, 1, cv2.LINE_AA)


def _picture_bytes(image: np.ndarray, suffix: str) -> bytes:
    if suffix == ".png":
        return cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    encoded: bytes = simplejpeg.encode_jpeg(image, _QUALITY)
    return encoded
