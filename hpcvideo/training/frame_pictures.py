"""Predicted frames beside true ones: a picture of some moments of some videos, and an animation of them all."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.training.frame_examples import PredictedVideo

PICTURE, ANIMATION = "frames.png", "frames.gif"

_INK = "#1b2733"
_STYLE: dict[Any, Any] = {"font.family": ["DejaVu Sans"], "font.size": 9.5, "text.color": _INK, "axes.labelcolor": _INK}
_MOMENTS = 8
_CELL_INCHES = 1.25
_TILE_PIXELS, _MARGIN, _HEADING = 160, 8, 22
_MILLISECONDS = 160
_ROWS = ("true", "predicted", "newest frame again")


def write_frame_pictures(folder: Path, videos: Sequence[PredictedVideo], title: str, measured: str) -> tuple[Path, Path]:
    """Write PICTURE and ANIMATION into the folder, which is made where it is missing, and return their paths.

    title: whose predictions these are; measured: how good they are, with the protocol. Raises InputError where there is no
    video, OperationFailed where a file cannot be written.
    """
    if not videos:
        raise InputError(f"{folder}: no video of the set is long enough for its frames to be shown")
    picture, animation = folder / PICTURE, folder / ANIMATION
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(_picture(videos, title, measured))
        animation.write_bytes(_animation(videos))
    except OSError as error:
        raise OperationFailed(f"{folder}: {error.strerror}") from error
    return picture, animation


def _picture(videos: Sequence[PredictedVideo], title: str, measured: str) -> bytes:
    """Three rows a video: true, predicted, the newest frame again; columns are moments from the first output to the last."""
    columns = min(_MOMENTS, *(len(video.true) for video in videos))
    with matplotlib.rc_context(_STYLE):
        size = (_CELL_INCHES * columns + 2.2, (_CELL_INCHES + 0.22) * 3 * len(videos) + 1.0)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        parts = figure.subfigures(len(videos), 1, squeeze=False)[:, 0]
        for part, video in zip(parts, videos, strict=True):
            part.suptitle(f"{_plain(video.id)}: {_ahead(video)}", x=0.01, ha="left", fontsize=10)
            moments = np.linspace(0, len(video.true) - 1, columns).round().astype(int)
            cells = part.subplots(3, columns, squeeze=False)
            for row, (name, shown) in enumerate(zip(_ROWS, _shown(video), strict=True)):
                for column, moment in enumerate(moments):
                    _draw(cells[row, column], shown[moment], None if row == 0 else video.true[moment])
                cells[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
        figure.suptitle(f"{_plain(title)}\n{_plain(measured)}", x=0.01, ha="left", fontsize=11, fontweight="bold")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _draw(cell: Axes, picture: NDArray[np.uint8], true: NDArray[np.uint8] | None) -> None:
    """A frame, below it its PSNR where it is not the true one."""
    cell.imshow(picture, interpolation="nearest")
    cell.set_xticks([])
    cell.set_yticks([])
    cell.spines[:].set_visible(False)
    if true is not None:
        error = float(np.square((picture.astype(float) - true) / 255).mean())
        cell.set_xlabel(f"{-10 * np.log10(error):.1f} dB" if error else "exact", fontsize=8, labelpad=1)


def _animation(videos: Sequence[PredictedVideo]) -> bytes:
    """All outputs of all videos one after another, three tiles a video side by side."""
    count = max(len(video.true) for video in videos)
    wide, high = (max(side) for side in zip(*(_tile_size(video) for video in videos), strict=True))
    width, height = 3 * (wide + _MARGIN) + _MARGIN, _HEADING + len(videos) * (high + _MARGIN)
    font = ImageFont.load_default(size=13)
    pages = []
    for moment in range(count):
        page = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(page)
        for column, name in enumerate(_ROWS):
            draw.text((_MARGIN + column * (wide + _MARGIN), 3), name, fill=_INK, font=font)
        for row, video in enumerate(videos):
            for column, shown in enumerate(_shown(video)):
                tile = Image.fromarray(shown[min(moment, len(shown) - 1)])
                tile = tile.resize(_tile_size(video), Image.Resampling.NEAREST)
                page.paste(tile, (_MARGIN + column * (wide + _MARGIN), _HEADING + row * (high + _MARGIN)))
        pages.append(page.quantize(256))
    buffer = io.BytesIO()
    pages[0].save(buffer, format="GIF", save_all=True, append_images=pages[1:], duration=_MILLISECONDS, loop=0)
    return buffer.getvalue()


def _shown(video: PredictedVideo) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    return video.true, video.predicted, video.newest


def _tile_size(video: PredictedVideo) -> tuple[int, int]:
    """(width, height): whole multiples of the frame's where it is small."""
    height, width = video.true.shape[1:3]
    times = max(1, _TILE_PIXELS // max(height, width))
    return width * times, height * times


def _ahead(video: PredictedVideo) -> str:
    return f"{video.horizon} frame{'s' if video.horizon > 1 else ''} ahead"


def _plain(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")
