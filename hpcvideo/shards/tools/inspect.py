"""Look into a shard set, one shard or one video, and see a video's frames as a picture."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from hpcvideo.errors import HpcvideoError, InputError, OperationFailed
from hpcvideo.shards.format import Quarantined
from hpcvideo.shards.frames import decode_frames, read_jpegs, source_sha256
from hpcvideo.shards.manifest import read_manifest
from hpcvideo.shards.reader import ShardSet
from hpcvideo.shards.tables import ShardTables, load_tables

_TILE_PIXELS = 224
_QUALITY = 90


def inspect_set(folder: Path) -> dict[str, Any]:
    """Facts of a finished set from its manifest: totals, arguments, label names, shards, quarantined.

    OperationFailed where a shard file is missing or has another size.
    """
    shards = ShardSet(folder)
    shards.check_files()
    return shards.manifest.to_json()


def inspect_shard(path: Path) -> dict[str, Any]:
    """Facts of one shard file: its attributes, counts, videos a label, frames a video and quarantined inputs.

    Labels go by the names in the manifest beside it, by their indices where there is none.
    """
    tables = load_tables(path)
    names = _label_names(path)
    counts = sorted(Counter(tables.labels[tables.labels >= 0].tolist()).items())
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "complete": tables.complete,
        "tool_version": tables.tool_version,
        "encoder": tables.encoder,
        "plan": tables.plan,
        "segments": len(tables.segments),
        "videos": len(tables),
        "frames": tables.frames,
        "frames_per_video": {
            "min": int(tables.num_frames.min()) if len(tables) else 0,
            "max": int(tables.num_frames.max(initial=0)),
        },
        "videos_per_label": {names[label] if label < len(names) else str(label): count for label, count in counts},
        "ids": [tables.id_of(row) for row in range(len(tables))],
        "quarantined": [asdict(entry) for entry in tables.quarantined],
    }


def _label_names(path: Path) -> tuple[str, ...]:
    try:
        manifest = read_manifest(path.resolve().parent)
    except HpcvideoError:
        return ()
    return manifest.label_names if path.name in {shard.file for shard in manifest.shards} else ()


def inspect_video(path: Path, video_id: str) -> dict[str, Any]:
    """Facts of one video of a set (a folder) or of a shard (a file). InputError where it is not there."""
    tables, row = _find(path, video_id)
    descriptor = os.open(tables.path, os.O_RDONLY)
    try:
        digest = source_sha256(descriptor, tables, row)
    finally:
        os.close(descriptor)
    return {
        "id": video_id,
        "shard": tables.path.name,
        "row": row,
        "labels": list(tables.labels_of(row)),
        "num_frames": int(tables.num_frames[row]),
        "width": int(tables.width[row]),
        "height": int(tables.height[row]),
        "fps": float(tables.fps[row]),
        "duration": float(tables.duration[row]),
        "actions": [asdict(action) for action in tables.actions_of(row)],
        "source_sha256": digest,
    }


def write_contact_sheet(path: Path, video_id: str, picture: Path, tiles: int = 16) -> None:
    """Write `tiles` evenly spaced frames of a video, row by row, as a PNG or JPEG picture.

    InputError where the video is not there or the picture's name has another suffix; OperationFailed where a
    frame is damaged or the picture cannot be written.
    """
    if picture.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{picture}: a contact sheet is written as .png, .jpg or .jpeg")
    tables, row = _find(path, video_id)
    count = int(tables.num_frames[row])
    frames = np.unique(np.linspace(0, count - 1, min(tiles, count)).round().astype(int)).tolist()
    descriptor = os.open(tables.path, os.O_RDONLY)
    try:
        jpegs = read_jpegs(descriptor, tables, row, frames)
    finally:
        os.close(descriptor)
    try:
        clip = decode_frames(jpegs, int(tables.height[row]), int(tables.width[row]))
    except ValueError as error:
        raise OperationFailed(f"{tables.path}: video {video_id!r} does not decode: {error}") from error
    try:
        picture.write_bytes(_picture_bytes(tile_frames(clip), picture.suffix.lower()))
    except OSError as error:
        raise OperationFailed(f"{picture}: {error.strerror}") from error


def tile_frames(clip: np.ndarray) -> np.ndarray:
    """Frames uint8 [n, height, width, 3] as one picture uint8 [h, w, 3]: a near-square grid, each at most 224 pixels."""
    scale = min(1.0, _TILE_PIXELS / max(clip.shape[1:3]))
    height, width = (max(1, round(side * scale)) for side in clip.shape[1:3])
    columns = math.ceil(math.sqrt(len(clip)))
    sheet = np.zeros((math.ceil(len(clip) / columns) * height, columns * width, 3), np.uint8)
    for index, frame in enumerate(clip):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return sheet


def _picture_bytes(image: np.ndarray, suffix: str) -> bytes:
    if suffix == ".png":
        return cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    encoded: bytes = simplejpeg.encode_jpeg(image, _QUALITY)
    return encoded


def _find(path: Path, video_id: str) -> tuple[ShardTables, int]:
    if path.is_file():
        shards = [path]
        quarantined: tuple[Quarantined, ...] = ()
    else:
        manifest = read_manifest(path)
        shards = [path / shard.file for shard in manifest.shards]
        quarantined = manifest.quarantined
    for shard in shards:
        tables = load_tables(shard)
        row = tables.row_of(video_id)
        if row is not None:
            return tables, row
        quarantined += tables.quarantined
    for entry in quarantined:
        if entry.source == video_id:
            raise InputError(f"{path}: video {video_id!r} was quarantined when the set was built: {entry.reason}")
    raise InputError(f"{path}: no video {video_id!r}; ids are the paths as listed, see `inspect` of a shard with --json")
