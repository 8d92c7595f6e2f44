"""What opening a set costs, in bytes read: the manifest, a few kilobytes a shard, and nothing for each frame."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from hpcvideo.shards.content import ShardContent
from hpcvideo.shards.manifest import Manifest, write_manifest
from hpcvideo.shards.records import StoredFrame, VideoRecord
from hpcvideo.shards.writer import store_shard

_METADATA_BYTES = 64 << 10  # superblock, groups, attributes, headers of datasets


def make_set(folder: Path, shards: int, videos: int, frames: int) -> Path:
    """A set with so many shards of so many videos of so many frames of 20 bytes."""
    def filler(index: int) -> Callable[[ShardContent], None]:
        def fill(content: ShardContent) -> None:
            for video in range(videos):
                record = VideoRecord(f"class{video % 400:03d}/{index}_{video:08d}.mp4", (video % 400,), (), 340, 256, 30.0,
                                     10.0, "0" * 64)  # fmt: skip
                content.add(record, (StoredFrame(b"j" * 20, frame, frame / 30) for frame in range(frames)))

        return fill

    folder.mkdir()
    entries = []
    for index in range(shards):
        ids = [f"class{video % 400:03d}/{index}_{video:08d}.mp4" for video in range(videos)]
        entries.append(store_shard(folder, index, "plan", {}, filler(index), ids).entry)
    write_manifest(folder, Manifest(tuple(entries), tuple(map(str, range(400))), {}, (), "plan", "0"))
    return folder


def bytes_read(folder: Path, what: str) -> int:
    """Bytes that a process of its own reads (rchar of /proc/self/io) while it does `what` with the set `shards`."""
    code = f"""
    import sys
    from pathlib import Path
    from hpcvideo.shards import ShardSet
    def read(): return int(Path("/proc/self/io").read_text().split()[1])
    from hpcvideo.shards.manifest import read_manifest
    warm = ShardSet({str(folder)!r}); warm.read_jpegs(0, [0])
    before = read()
    shards = ShardSet({str(folder)!r})
    {what}
    print(read() - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.fixture(scope="module")
def many_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("many_frames") / "set", 1, 50, 3000)


def test_opening_a_set_reads_its_manifest_alone(tmp_path):
    folder = make_set(tmp_path / "set", 40, 2, 1)
    size = (folder / "manifest.json").stat().st_size
    assert bytes_read(folder, "assert len(shards) == 80") <= size + 4096
    # And of a video that is looked up, one shard.
    assert bytes_read(folder, "shards.video(79)") <= size + _METADATA_BYTES


def test_a_video_is_read_without_the_rows_of_the_others_frames(many_frames):
    with h5py.File(many_frames / "shard-00000.h5") as shard:
        tables = sum(data.size * data.dtype.itemsize for name in ("frames", "videos") for data in shard[name].values())
    assert tables > 3_000_000
    read = bytes_read(many_frames, "shards.video(25); shards.read_jpegs(25, [0, 100, 2999]); shards.source_frames(25)")
    assert read < 3000 * 24 + 50 * 200 + (many_frames / "manifest.json").stat().st_size + _METADATA_BYTES
    assert read < tables / 10


def test_a_shard_of_20000_videos_is_opened_with_its_columns_read_once(tmp_path):
    folder = make_set(tmp_path / "set", 1, 20_000, 1)
    with h5py.File(folder / "shard-00000.h5") as shard:
        columns = sum(data.size * data.dtype.itemsize for name, data in shard["videos"].items() if "source_" not in name)
    assert columns / 20_000 < 100
    size = (folder / "manifest.json").stat().st_size
    assert bytes_read(folder, "shards.video(19_999)") < 1.05 * columns + size + _METADATA_BYTES
