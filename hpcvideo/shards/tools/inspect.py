"""Look into a shard set, one shard or one video, and see a video's frames as a picture."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hpcvideo.errors import HpcvideoError, InputError
from hpcvideo.shards.format import Quarantined
from hpcvideo.shards.frames import frame_rows, source_rows, source_sha256
from hpcvideo.shards.manifest import read_manifest
from hpcvideo.shards.reader import ShardSet
from hpcvideo.shards.tables import ShardTables, load_tables
from hpcvideo.shards.tools.contact_sheet import write_contact_sheet


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
        "videos_per_label": {_name(names, label): count for label, count in counts},
        "actions": len(tables.actions["video"]),
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
    """Facts of one video of a set (a folder) or of a shard (a file). InputError where it is not there.

    `source_frames` are the numbers in the source of the stored frames, `source_seconds` when the source shows them (None
    where it has no clock); `bytes` are those of its JPEGs.
    """
    tables, row = find_video(path, video_id)
    names = _label_names(tables.path)
    descriptor = os.open(tables.path, os.O_RDONLY)
    try:
        digest = source_sha256(descriptor, tables, row)
        numbers, seconds = source_rows(descriptor, tables, row)
        lengths = frame_rows(descriptor, tables, row, range(int(tables.num_frames[row])))["length"]
    finally:
        os.close(descriptor)
    return {
        "id": video_id,
        "shard": tables.path.name,
        "row": row,
        "labels": list(tables.labels_of(row)),
        "label_names": [_name(names, label) for label in tables.labels_of(row)],
        "num_frames": int(tables.num_frames[row]),
        "bytes": int(lengths.sum(dtype=int)),
        "width": int(tables.width[row]),
        "height": int(tables.height[row]),
        "fps": float(tables.fps[row]),
        "duration": float(tables.duration[row]),
        "actions": [
            {"label": action.label, "name": _name(names, action.label), "begin": action.begin, "end": action.end}
            for action in tables.actions_of(row)
        ],
        "source_frames": numbers.tolist(),
        "source_seconds": None if np.isnan(seconds).any() else [round(float(each), 6) for each in seconds],
        "source_sha256": digest,
    }


def _name(names: Sequence[str], label: int) -> str:
    return names[label] if label < len(names) else str(label)


def draw_video(path: Path, video_id: str, picture: Path) -> None:
    """Write a contact sheet of a video of a set or of a shard, see contact_sheet.py. InputError where it is not there."""
    tables, row = find_video(path, video_id)
    names = _label_names(tables.path)
    labels = ", ".join(_name(names, label) for label in tables.labels_of(row))
    rate = f", {tables.fps[row]:.4g} frames/s" if tables.fps[row] else ""
    size = f"{tables.width[row]}x{tables.height[row]}, {tables.num_frames[row]} frames{rate}"
    write_contact_sheet(tables, row, "   ".join(filter(None, (video_id, labels, size))), picture)


def find_video(path: Path, video_id: str) -> tuple[ShardTables, int]:
    """Where a video of a set (a folder) or of a shard (a file) is: shard and row. InputError where it is not there."""
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
