"""ShardSet: the right bytes, to any thread and process, or a sentence that says which are wrong."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import shutil
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards import ShardSet
from hpcvideo.shards.tables import load_tables

pytestmark = pytest.mark.forks


@pytest.fixture
def damaged(shard_set, tmp_path) -> Path:
    """A copy of the set, for damaging."""
    return Path(shutil.copytree(shard_set, tmp_path / "damaged"))


def flip_byte_of(folder: Path, index: int, frame: int) -> tuple[str, str]:
    """Flip one bit inside a frame; returns shard file and video id."""
    shards = ShardSet(folder)
    video_id, jpeg = shards.video(index).id, shards.read_jpegs(index, [frame])[0]
    for path in sorted(folder.glob("*.h5")):
        content = bytearray(path.read_bytes())
        if (at := content.find(jpeg)) >= 0:
            content[at + len(jpeg) // 2] ^= 1
            path.write_bytes(content)
            return path.name, video_id
    raise AssertionError("frame not found in any shard")


def test_frames_come_in_the_order_asked_for(shard_set):
    shards = ShardSet(shard_set)
    assert len(shards) == 9
    everything = shards.read(4, range(shards.video(4).num_frames))
    wanted = [5, 0, 5, 3]
    clip = shards.read(4, wanted)
    assert (clip.dtype, clip.shape) == (np.uint8, (4, *everything.shape[1:]))
    assert (clip == everything[wanted]).all()
    assert (shards.read(4, np.array(wanted)) == clip).all()
    assert shards.read(4, []).shape == (0, *everything.shape[1:])


def test_opening_reads_the_manifest_alone(shard_set, tmp_path):
    shutil.copy(shard_set / "manifest.json", tmp_path)
    shards = ShardSet(tmp_path)
    assert (len(shards), shards.label_names) == (9, ("jump", "run", "walk"))
    with pytest.raises(OperationFailed, match=r"shard-00000\.h5: is missing; .*hpcvideo shards verify"):
        shards.video(0)


@pytest.mark.parametrize("index", [-1, 9])
def test_a_video_that_is_not_there_is_an_index_error(shard_set, index):
    with pytest.raises(IndexError, match="of a set of 9"):
        ShardSet(shard_set).video(index)


@pytest.mark.parametrize("frame", [-1, 1000])
def test_a_frame_that_is_not_there_is_an_index_error(shard_set, frame):
    with pytest.raises(IndexError, match=f"frame {frame} of video 'clip"):
        ShardSet(shard_set).read(0, [0, frame])


def test_a_flipped_bit_is_named_at_its_frame_every_time(damaged):
    shard, video_id = flip_byte_of(damaged, 5, 3)
    shards = ShardSet(damaged)
    for _ in range(2):
        with pytest.raises(OperationFailed, match=rf"{shard}: video '{video_id}', frame 3: checksum differs"):
            shards.read(5, [0, 3, 4])
    shards.read(5, [0, 1, 2, 4])


def test_a_shortened_shard_is_refused_at_first_touch(damaged):
    path = damaged / "shard-00001.h5"
    os.truncate(path, path.stat().st_size - 1)
    shards = ShardSet(damaged)
    shards.read(0, [0])
    with pytest.raises(OperationFailed, match=r"shard-00001\.h5: is cut short: \d+ bytes, the manifest says \d+; list"):
        shards.read(4, [0])


def test_a_shard_with_other_content_of_the_same_size_is_refused(damaged):
    path = damaged / "shard-00001.h5"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(OperationFailed, match=r"shard-00001\.h5: is not a whole HDF5 file; delete"):
        ShardSet(damaged).video(4)


@pytest.mark.parametrize(("column", "value"), [("offset", 2**63), ("offset", 2**50), ("length", 2**31), ("length", 5)])
def test_a_damaged_table_entry_is_named_at_its_frame(damaged, column, value):
    with h5py.File(damaged / "shard-00000.h5", "r+") as shard:
        shard["frames"][column][2] = value
    with pytest.raises(OperationFailed, match=r"shard-00000\.h5: video 'clip\d\.mp4', frame 2: "):
        ShardSet(damaged).read(0, [0, 2])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": "other"}, "not the manifest"),
        ({"version": 2}, "format version 2, this"),
        ({"shards": [1]}, "not a whole"),
    ],
)
def test_a_wrong_manifest_is_refused(damaged, change, sentence):
    content = json.loads((damaged / "manifest.json").read_text())
    (damaged / "manifest.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(InputError, match=sentence):
        ShardSet(damaged)


def test_damaged_video_tables_are_refused_when_the_shard_is_opened(damaged):
    sentence = r"shard-00000\.h5: its video tables are damaged; delete the file and build again"
    with h5py.File(damaged / "shard-00000.h5", "r+") as shard:
        shard["videos/label"][1] ^= 1
    with pytest.raises(OperationFailed, match=sentence):
        ShardSet(damaged).video(0)
    with h5py.File(damaged / "shard-00000.h5", "r+") as shard:
        shard["videos/label"][1] ^= 1
    assert ShardSet(damaged).video(0).num_frames
    with h5py.File(damaged / "shard-00000.h5", "r+") as shard:
        del shard.attrs["videos_crc32"]
    with pytest.raises(OperationFailed, match=sentence):
        load_tables(damaged / "shard-00000.h5")


def test_the_files_of_a_set_are_checked_without_opening_them(damaged):
    ShardSet(damaged).check_files()
    with (damaged / "shard-00002.h5").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(OperationFailed, match=r"shard-00002\.h5: is too long: .*then delete this shard and run the same"):
        ShardSet(damaged).check_files()
    (damaged / "shard-00001.h5").unlink()
    with pytest.raises(OperationFailed, match=r"shard-00001\.h5: is missing; "):
        ShardSet(damaged).check_files()


def test_a_path_that_is_no_set_is_refused_by_what_it_is(shard_set):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        ShardSet(shard_set / "nowhere")
    with pytest.raises(InputError, match=r"is one shard; give the folder that holds manifest\.json"):
        ShardSet(shard_set / "shard-00000.h5")


def read_at_random(shards: ShardSet, expected: list[list[bytes]], seed: int, rounds: int = 200) -> bool:
    chance = random.Random(seed)
    for _ in range(rounds):
        index = chance.randrange(len(expected))
        frames = [chance.randrange(len(expected[index])) for _ in range(4)]
        if shards.read_jpegs(index, frames) != [expected[index][frame] for frame in frames]:
            return False
    return True


@pytest.fixture(scope="module")
def expected(shard_set) -> list[list[bytes]]:
    """All frames of all videos, cut out of the files without the reader."""
    videos = []
    for path in sorted(shard_set.glob("*.h5")):
        tables, content = load_tables(path), path.read_bytes()
        offsets = np.frombuffer(content, "<u8", tables.frames, tables.row_offsets["offset"]).astype(int)
        lengths = np.frombuffer(content, "<u4", tables.frames, tables.row_offsets["length"]).astype(int)
        frames = [content[offset : offset + length] for offset, length in zip(offsets, lengths, strict=True)]
        videos += [frames[first : first + n] for first, n in zip(tables.first_frame, tables.num_frames, strict=True)]
    return videos


def test_many_threads_read_right_while_descriptors_are_evicted(shard_set, expected):
    before = len(list(Path("/proc/self/fd").iterdir()))
    shards = ShardSet(shard_set, max_open_shards=1)
    good: list[bool] = []
    threads = [
        threading.Thread(target=lambda seed=seed: good.append(read_at_random(shards, expected, seed))) for seed in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [True] * 8
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def read_in_a_child(shards: ShardSet, expected: list[list[bytes]], seed: int) -> None:
    raise SystemExit(0 if read_at_random(shards, expected, seed) else 3)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_children_and_the_parent_read_at_once(shard_set, expected):
    shards = ShardSet(shard_set, max_open_shards=2)
    assert read_at_random(shards, expected, 0)
    # Forked while another thread holds the lock: the child must not wait for it.
    shards._opened.lock.acquire()
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=read_in_a_child, args=(shards, expected, seed), daemon=True) for seed in range(1, 5)]
    for child in children:
        child.start()
    shards._opened.lock.release()
    assert read_at_random(shards, expected, 9)
    deadline = time.monotonic() + 30
    for child in children:
        child.join(max(0, deadline - time.monotonic()))
    assert [child.exitcode for child in children] == [0] * 4


def test_a_set_can_be_sent_to_a_spawned_process(shard_set, expected):
    shards = pickle.loads(pickle.dumps(ShardSet(shard_set, max_open_shards=2)))
    assert read_at_random(shards, expected, 1)
    assert shards._max_open_shards == 2


def test_a_sound_shard_that_is_open_with_other_locking_is_not_called_damaged(damaged):
    with (
        h5py.File(damaged / "shard-00000.h5", "r", locking=True),
        pytest.raises(OperationFailed, match="is open in this process with other HDF5 locking flags; close it there"),
    ):
        load_tables(damaged / "shard-00000.h5")
    assert len(load_tables(damaged / "shard-00000.h5"))
