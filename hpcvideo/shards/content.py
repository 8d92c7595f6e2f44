"""What goes into a shard, video by video, in the order in which it is to lie there."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import Any

import h5py
import numpy as np

from hpcvideo import __version__
from hpcvideo.shards.format import (
    ACTION_COLUMNS,
    FORMAT,
    FRAME_COLUMNS,
    SEGMENT_BYTES,
    SOURCE_FRAME_COLUMNS,
    VERSION,
    VIDEO_COLUMNS,
    Quarantined,
)
from hpcvideo.shards.records import StoredFrame, VideoRecord
from hpcvideo.shards.tables import tables_checksum

_ROW = np.dtype([("segment", "<u4"), ("offset", "<u8"), ("length", "<u4"), ("crc32", "<u4"), ("source", "<u4"),
                 ("seconds", "<f4")])  # fmt: skip


class ShardContent:
    """Fills an open HDF5 file. At most one segment of JPEG bytes and 28 bytes a frame are in memory."""

    def __init__(self, shard: h5py.File) -> None:
        self._shard = shard
        self._segments = shard.create_group("segments")
        self._segment = bytearray()
        self._segment_base: list[int] = []  # absolute offset of each segment written
        self._frames: list[np.ndarray] = []  # of each video, _ROW [n]
        self._videos: list[VideoRecord] = []
        self._quarantined: list[Quarantined] = []

    @property
    def anything(self) -> bool:
        """Whether any video was added or left out."""
        return bool(self._videos or self._quarantined)

    def add(self, record: VideoRecord, frames: Iterable[StoredFrame]) -> None:
        """Append one video. Raises ValueError for a video without frames or a frame larger than a segment."""
        rows = [self._append(frame) for frame in frames]
        if not rows:
            raise ValueError(f"video {record.id!r} has no frame")
        self._frames.append(np.array(rows, _ROW))
        self._videos.append(record)

    def leave_out(self, entry: Quarantined) -> None:
        """Note an input that was planned for this shard and is not in it."""
        self._quarantined.append(entry)

    def finish(self, plan: str, encoder: dict[str, Any]) -> None:
        """Write the last segment, the tables and the attributes, `complete` still 0."""
        self._flush_segment()
        rows = np.concatenate(self._frames) if self._frames else np.empty(0, _ROW)
        base = np.array(self._segment_base, np.uint64)
        offsets = base[rows["segment"]] + rows["offset"] if len(rows) else rows["offset"]
        columns = dict(zip(FRAME_COLUMNS, (offsets, rows["length"], rows["crc32"]), strict=True))
        _write_group(self._shard, "frames", {name: column.astype(FRAME_COLUMNS[name]) for name, column in columns.items()})
        sources = {"source_sha256": _text_column([record.source_sha256 for record in self._videos], "ascii", 64)}
        for name, column in zip(SOURCE_FRAME_COLUMNS, (rows["source"], rows["seconds"]), strict=True):
            sources[name] = column.astype(SOURCE_FRAME_COLUMNS[name])
        videos, actions = self._video_columns(), self._action_columns()
        for group, columns in (("videos", videos | sources), ("actions", actions)):
            if columns:
                _write_group(self._shard, group, columns)
        notes = json.dumps([asdict(entry) for entry in self._quarantined], ensure_ascii=False)
        _dataset(self._shard, "quarantined", np.frombuffer(notes.encode(), np.uint8))
        attributes = {"format": FORMAT, "encoder": json.dumps(encoder), "tool_version": __version__, "plan": plan}
        for name, text in attributes.items():
            self._shard.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", len(text.encode())))
        self._shard.attrs.create("version", VERSION, dtype="<u4")
        checksum = tables_checksum([*_by_name(videos), *_by_name(actions)])
        self._shard.attrs.create("videos_crc32", checksum, dtype="<u4")
        self._shard.attrs.create("sources_crc32", tables_checksum(_by_name(sources)), dtype="<u4")
        self._shard.attrs.create("complete", 0, dtype="u1")

    def _append(self, frame: StoredFrame) -> tuple[int, int, int, int, int, float]:
        length = len(frame.jpeg)
        if length > SEGMENT_BYTES:
            raise ValueError(f"a frame of {length} bytes is larger than a segment of {SEGMENT_BYTES}")
        if len(self._segment) + length > SEGMENT_BYTES:
            self._flush_segment()
        place = len(self._segment_base), len(self._segment)
        self._segment += frame.jpeg
        return (*place, length, zlib.crc32(frame.jpeg), frame.source_frame, frame.seconds)

    def _flush_segment(self) -> None:
        if not self._segment:
            return
        name = f"{len(self._segment_base):05d}"
        dataset = _dataset(self._segments, name, np.frombuffer(self._segment, np.uint8))
        self._segment_base.append(dataset.id.get_offset())
        self._segment = bytearray()

    def _action_columns(self) -> dict[str, np.ndarray]:
        """The columns of /actions; none where no video has any."""
        rows = [
            (video, action.label, action.begin, action.end)
            for video, record in enumerate(self._videos)
            for action in record.actions
        ]
        columns = zip(*rows, strict=True)
        return {name: np.array(column, ACTION_COLUMNS[name]) for name, column in zip(ACTION_COLUMNS, columns, strict=False)}

    def _video_columns(self) -> dict[str, np.ndarray]:
        """The columns of /videos but for those of the source."""
        counts = [len(rows) for rows in self._frames]
        values: dict[str, Sequence[float]] = {
            name: [getattr(record, name) for record in self._videos] for name in ("width", "height", "fps", "duration")
        }
        values["label"] = [record.labels[0] if record.labels else -1 for record in self._videos]
        values["first_frame"] = list(accumulate(counts, initial=0))[: len(counts)]
        values["num_frames"] = counts
        columns = {name: np.array(values[name], dtype) for name, dtype in VIDEO_COLUMNS.items()}
        columns["id"] = _text_column([record.id for record in self._videos], "utf-8")
        most_labels = max((len(record.labels) for record in self._videos), default=0)
        if most_labels > 1:
            padded = [record.labels + (-1,) * (most_labels - len(record.labels)) for record in self._videos]
            columns["labels"] = np.array(padded, "<i4")
        return columns


def _by_name(columns: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [columns[name] for name in sorted(columns)]


def _write_group(shard: h5py.File, name: str, columns: dict[str, np.ndarray]) -> None:
    group = shard.create_group(name)
    for column, values in columns.items():
        _dataset(group, column, values)


def _dataset(group: h5py.Group, name: str, values: np.ndarray) -> h5py.Dataset:
    return group.create_dataset(name, data=values, track_times=False)


def _text_column(values: list[str], encoding: str, width: int = 1) -> np.ndarray:
    raw = [value.encode(encoding) for value in values]
    width = max(map(len, raw), default=width)
    return np.array(raw, h5py.string_dtype(encoding, width))
