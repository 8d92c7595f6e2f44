"""A folder that holds one JPEG a frame: which files are its frames, and in which order they are shown."""

from __future__ import annotations

import os
import re
from pathlib import Path

FRAME_SUFFIXES = (".jpg", ".jpeg")
_SIZED_FRAMES = 16


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which frame2 comes before frame10."""
    pieces = re.split(r"([0-9]+)", name)
    return tuple((1, int(piece), piece) if piece.isdecimal() else (0, 0, piece) for piece in pieces if piece)


def is_frame(name: str) -> bool:
    """Whether a file of this name, without its folder, is a frame: a JPEG that is not hidden."""
    return name.lower().endswith(FRAME_SUFFIXES) and not name.startswith(".")


def frame_files(folder: Path) -> list[Path]:
    """The JPEG files of a frame folder in natural order; hidden files are left out. OSError as the file system gives it."""
    return sorted((path for path in folder.iterdir() if is_frame(path.name)), key=lambda path: natural_order(path.name))


def count_frames(folder: Path) -> tuple[int, int]:
    """(frames, bytes) of a frame folder; the bytes are exact up to 16 frames and beyond estimated from 16 spread evenly.

    A parallel file system answers for each file apart: asking for all 72 million of a large set would take hours.
    OSError as the file system gives it.
    """
    names = sorted(name for name in os.listdir(folder) if is_frame(name))  # noqa: PTH208 - names alone
    sized = min(len(names), _SIZED_FRAMES)
    sizes = sum((folder / names[place * len(names) // sized]).stat().st_size for place in range(sized))
    return len(names), sizes if sized == len(names) else sizes * len(names) // sized
