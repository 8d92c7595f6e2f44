"""The format: whatever is written reads back equal, through this package and through plain h5py."""

from __future__ import annotations

import json
import math
import tempfile
import zlib
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcvideo.shards import ShardSet
from hpcvideo.shards.content import ShardContent
from hpcvideo.shards.format import Quarantined
from hpcvideo.shards.manifest import Manifest, write_manifest
from hpcvideo.shards.records import Action, StoredFrame, VideoRecord
from hpcvideo.shards.writer import store_shard

text = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
seconds = st.floats(0, 1e6, width=32)
frames = st.lists(
    st.builds(StoredFrame, st.binary(min_size=1, max_size=300), st.integers(0, 2**32 - 1), seconds | st.just(math.nan)),
    min_size=1, max_size=6,
)  # fmt: skip
actions = st.lists(st.builds(Action, st.integers(0, 999), st.floats(0, 1e6), st.floats(0, 1e6)), max_size=3).map(tuple)
records = st.builds(
    VideoRecord, text, st.lists(st.integers(0, 2**31 - 1), max_size=4, unique=True).map(tuple), actions,
    st.integers(1, 9999), st.integers(1, 9999), st.floats(0, 1000), st.floats(0, 1e6),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
)  # fmt: skip
videos = st.lists(st.tuples(records, frames), max_size=8, unique_by=lambda video: video[0].id)
broken_videos = st.builds(Quarantined, text.map("broken/".__add__), text)
left_out = st.lists(broken_videos, max_size=2, unique_by=lambda entry: entry.source)


def equal(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(videos, left_out), min_size=1, max_size=3), st.integers(300, 2000))
def test_any_videos_read_back_equal(shards, segment_bytes):
    seen: set[str] = set()
    unique = []
    for index, (content, broken) in enumerate(shards):
        own = [video for video in content if video[0].id not in seen]
        seen |= {record.id for record, _ in own}
        unique.append((index, own, [Quarantined(f"{index}/{entry.source}", entry.reason) for entry in broken]))
    with tempfile.TemporaryDirectory() as name, mock.patch("hpcvideo.shards.content.SEGMENT_BYTES", segment_bytes):
        folder = Path(name)
        entries = []
        for index, own, broken in unique:

            def fill(content: ShardContent, own=own, broken=broken) -> None:
                for record, stored in own:
                    content.add(record, iter(stored))
                for entry in broken:
                    content.leave_out(entry)

            ids = [*(record.id for record, _ in own), *(entry.source for entry in broken)]
            written = store_shard(folder, index, "plan", {"quality": 85}, fill, ids)
            assert written.quarantined == tuple(broken)
            entries.append(written.entry)
            check_by_h5py(folder / written.entry.file, own, broken)
        write_manifest(folder, Manifest(tuple(entries), ("a",), {}, (), "plan", "0"))
        check_by_shard_set(ShardSet(folder), [video for _, own, _ in unique for video in own])


def check_by_shard_set(found: ShardSet, expected: list[tuple[VideoRecord, list[StoredFrame]]]) -> None:
    assert len(found) == len(expected)
    for index, (record, stored) in enumerate(expected):
        video = found.video(index)
        assert (video.id, video.labels, video.actions) == (record.id, record.labels, record.actions)
        assert (video.num_frames, video.width, video.height) == (len(stored), record.width, record.height)
        assert (video.fps, video.duration) == (record.fps, record.duration)
        assert found.read_jpegs(index, range(len(stored))) == [frame.jpeg for frame in stored]
        numbers, shown = found.source_frames(index)
        assert numbers.tolist() == [frame.source_frame for frame in stored]
        assert all(map(equal, shown.tolist(), [frame.seconds for frame in stored]))


def check_by_h5py(path: Path, expected: list[tuple[VideoRecord, list[StoredFrame]]], broken: list[Quarantined]) -> None:
    raw = path.read_bytes()
    with h5py.File(path) as shard:
        table = shard["videos"]
        assert list(table["id"].asstr()[:]) == [record.id for record, _ in expected]
        assert [sha.decode() for sha in table["source_sha256"][:]] == [record.source_sha256 for record, _ in expected]
        assert json.loads(bytes(shard["quarantined"][:])) == [{"source": e.source, "reason": e.reason} for e in broken]
        assert all(0 < len(data) <= 2000 for data in shard["segments"].values())
        assert ("labels" in table) == any(len(record.labels) > 1 for record, _ in expected)
        assert ("actions" in shard) == any(record.actions for record, _ in expected)
        row = 0
        for video, (record, stored) in enumerate(expected):
            assert table["label"][video] == (record.labels[0] if record.labels else -1)
            if "labels" in table:
                assert tuple(table["labels"][video][table["labels"][video] >= 0].tolist()) == record.labels
            assert (table["first_frame"][video], table["num_frames"][video]) == (row, len(stored))
            if "actions" in shard:
                mine = np.flatnonzero(shard["actions/video"][:] == video)
                columns = [shard["actions"][name][:][mine].tolist() for name in ("label", "begin", "end")]
                assert tuple(Action(*values) for values in zip(*columns, strict=True)) == record.actions
            for frame in stored:
                offset, length = int(shard["frames/offset"][row]), int(shard["frames/length"][row])
                assert raw[offset : offset + length] == frame.jpeg
                assert shard["frames/crc32"][row] == zlib.crc32(frame.jpeg)
                assert table["source_frame"][row] == frame.source_frame
                assert equal(float(table["source_seconds"][row]), frame.seconds)
                row += 1
        assert len(shard["frames/offset"]) == row
