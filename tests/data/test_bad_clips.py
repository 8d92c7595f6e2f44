"""Damaged bytes while training: they are named, and the run stops or goes on, as it was told."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import psutil
import pytest
import torch

from hpcvideo.data import Batch, ClipLoader, ClipView
from hpcvideo.data.clip_cutter import ClipSource
from hpcvideo.data.clip_tasks import EVALUATION, ClipTask
from hpcvideo.data.sample_order import GlobalOrder
from hpcvideo.data.worker_processes import WorkerProcesses
from hpcvideo.errors import OperationFailed
from hpcvideo.shards import ShardSet
from hpcvideo.shards.frames import frame_rows
from hpcvideo.shards.staging.local_folder import set_folder

pytestmark = pytest.mark.forks

VIEW = ClipView(frames=14, size=24, short_side=32)  # enough frames to meet every one of a video


@pytest.fixture
def damaged(shard_folder: Path, tmp_path: Path) -> tuple[Path, str]:
    """A copy of the training set with one byte of frame 2 of one video changed: the set, the video's id."""
    folder = tmp_path / "set"
    shutil.copytree(shard_folder / "train", folder)
    shards = ShardSet(folder)
    video = shards.video(4).id
    jpeg = shards.read_jpegs(4, [2])[0]
    shard = folder / "shard-00000.h5"
    content = bytearray(shard.read_bytes())
    content[content.index(jpeg) + len(jpeg) // 2] ^= 0x10
    shard.write_bytes(content)
    return folder, video


@pytest.mark.parametrize(("kind", "workers"), [("thread", 0), ("thread", 2), ("fork", 2), ("spawn", 2)])
def test_a_changed_byte_stops_the_loader_and_names_shard_video_and_frame(
    damaged: tuple[Path, str], kind: str, workers: int
) -> None:
    folder, video = damaged
    with ClipLoader(ShardSet(folder), VIEW, workers=workers, worker_kind=kind) as loader:
        with pytest.raises(OperationFailed) as raised:
            list(loader.training(5, 0, 20))
        sentence = str(raised.value)
        assert "shard-00000.h5" in sentence and repr(video) in sentence and "frame 2" in sentence
        assert "checksum" in sentence and "shards verify" in sentence


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_what_a_worker_said_before_it_left_is_not_lost_when_it_is_missed_first(
    damaged: tuple[Path, str], kind: str
) -> None:
    """The next thing that the loader wants of a worker may be to take a buffer, not to read its answers."""
    folder, video = damaged
    source = ClipSource(ShardSet(folder), VIEW, GlobalOrder(1, 0), 0)
    workers = WorkerProcesses(source, 1, kind)
    try:
        buffer, _ = workers.new_buffer(14 * 24 * 24 * 3)
        workers.submit([ClipTask(0, buffer, 0, 4, EVALUATION, 0, True)])
        psutil.wait_procs([psutil.Process(workers.process_ids[0])], timeout=20)
        with pytest.raises(OperationFailed, match=f"{video}', frame 2: checksum differs"):
            workers.new_buffer(100)
    finally:
        workers.close()


def test_an_iterator_from_before_the_loader_was_closed_is_refused(shard_folder: Path) -> None:
    for workers in (0, 1):
        loader = ClipLoader(ShardSet(shard_folder / "train"), VIEW, workers=workers, worker_kind="thread")
        batches = loader.training(4, 0, 10)
        next(batches)
        loader.close()
        with pytest.raises(ValueError, match="closed since this iterator began"):
            next(batches)
        next(loader.training(4, 0, 10))
        loader.close()


def test_storage_that_fails_is_a_damaged_frame_like_any_other(
    damaged: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the file system (EIO of a worn-out disk) is skipped and counted as a wrong checksum is."""
    real = os.preadv

    def failing(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if offset == bad_offset:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, buffers, offset)

    folder, _ = damaged
    shards = ShardSet(folder)
    video = shards.open_video(7)
    bad_offset = int(frame_rows(video.descriptor, video.tables, video.row, [3])["offset"][0])
    monkeypatch.setattr(os, "preadv", failing)
    with ClipLoader(shards, VIEW, workers=0, on_bad_clip="skip", max_bad_videos=100) as loader:
        for _ in loader.training(12, 0, 2):
            pass
        told = {(clip.video, clip.frame): clip.sentence for clip in loader.take_bad_clips()}
    assert "cannot be read (Input/output error)" in told[video.id, 3]


def taken(folder: Path, world_size: int, kind: str, workers: int) -> tuple[list[Batch], list[str], int]:
    """Batches in global order, who was bad, and how many, over three epochs."""
    ranks, bad, count = [], [], 0
    for rank in range(world_size):
        with ClipLoader(
            ShardSet(folder), VIEW, seed=2, rank=rank, world_size=world_size, worker_kind=kind, workers=workers,
            on_bad_clip="skip", max_bad_videos=1000,
        ) as loader:  # fmt: skip
            ranks.append(list(loader.training(12, 0, 7)))
            bad += [f"{clip.shard} {clip.video} {clip.frame}" for clip in loader.take_bad_clips()]
            assert loader.take_bad_clips() == []
            count += len(loader.bad_videos)
    return [ranks[rank][step] for step in range(7) for rank in range(world_size)], bad, count


def test_a_skipped_clip_is_replaced_alike_on_any_number_of_ranks_and_workers(damaged: tuple[Path, str]) -> None:
    folder, video = damaged
    reference, bad, count = taken(folder, 1, "thread", 0)
    assert count == 1 and len(bad) >= 3 and set(bad) == {f"shard-00000.h5 {video} 2"}
    ids = [name for batch in reference for name in batch["ids"]]
    clips = torch.cat([batch["clips"] for batch in reference])
    assert video not in ids and "" not in ids
    for world_size, kind, workers in ((3, "thread", 2), (2, "fork", 3), (1, "spawn", 2)):
        batches, others, _ = taken(folder, world_size, kind, workers)
        assert [name for batch in batches for name in batch["ids"]] == ids
        assert torch.equal(torch.cat([batch["clips"] for batch in batches]), clips)
        assert sorted(others) == sorted(bad)


def test_the_replacement_is_the_order_s_and_has_its_own_label(damaged: tuple[Path, str]) -> None:
    folder, video = damaged
    shards = ShardSet(folder)
    names = [shards.video(index).id for index in range(len(shards))]
    order = GlobalOrder(len(shards), 2)
    batches, _, _ = taken(folder, 1, "thread", 0)
    replaced = 0
    for step, batch in enumerate(batches):
        epochs, samples = order.batch(step, 12, slice(0, 12))
        for epoch, sample, name, label in zip(epochs, samples, batch["ids"], batch["labels"], strict=True):
            assert label == shards.video(names.index(name)).labels[0]
            expected, attempt = int(sample), 0
            while names[expected] == video:
                attempt += 1
                expected = order.replacement(int(epoch), int(sample), attempt)
                replaced += 1
            assert name == names[expected]
    assert replaced >= 3


def test_more_bad_videos_than_allowed_end_the_loader_with_a_sentence(damaged: tuple[Path, str]) -> None:
    folder, video = damaged
    with ClipLoader(
        ShardSet(folder), VIEW, seed=2, workers=0, on_bad_clip="skip", max_bad_videos=0
    ) as loader:
        with pytest.raises(OperationFailed, match=r"1 video could not be read, data\.max_bad_videos allows 0") as raised:
            list(loader.training(12, 0, 20))
        assert video in str(raised.value) and "frame 2" in str(raised.value)


def test_a_bad_video_is_not_scored_and_every_other_is(damaged: tuple[Path, str]) -> None:
    folder, video = damaged
    with ClipLoader(
        ShardSet(folder), VIEW, worker_kind="fork", on_bad_clip="skip", max_bad_videos=1
    ) as loader:
        batches = list(loader.evaluation(4))
        assert len(loader.bad_videos) == 1
    rows = [row for batch in batches for row in zip(batch["ids"], batch["weights"].tolist(), batch["clips"], strict=True)]
    scored = [name for name, weight, _ in rows if weight]
    assert len(scored) == len(set(scored)) == 24 and video not in scored
    assert all(not clip.any() for _, weight, clip in rows if not weight)


def test_a_missing_shard_is_skipped_clip_by_clip_until_too_many(shard_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(shard_folder / "train", folder)
    (folder / "shard-00001.h5").unlink()
    with ClipLoader(ShardSet(folder), VIEW, workers=0, on_bad_clip="skip", max_bad_videos=5) as loader:
        with pytest.raises(OperationFailed, match=r"6 videos could not be read.*shard-00001\.h5: is missing"):
            list(loader.training(5, 0, 20))
        assert {clip.shard for clip in loader.take_bad_clips()} == {"shard-00001.h5"}


@pytest.mark.parametrize(("kind", "workers"), [("thread", 0), ("fork", 2)])
def test_a_damaged_local_copy_is_dropped_and_the_set_is_read(
    shard_folder: Path, tmp_path: Path, kind: str, workers: int
) -> None:
    shards = ShardSet(shard_folder / "train")
    local = set_folder(tmp_path, shards.manifest.shards)
    local.mkdir()
    copy = local / "shard-00000.h5"
    content = bytearray((shard_folder / "train" / copy.name).read_bytes())
    jpeg = shards.read_jpegs(4, [2])[0]
    content[content.index(jpeg) + len(jpeg) // 2] ^= 0x10
    copy.write_bytes(content)
    taken = []
    for one in (shards, ShardSet(shard_folder / "train", local=tmp_path)):
        with ClipLoader(one, VIEW, worker_kind=kind, workers=workers) as loader:
            taken.append(torch.cat([batch["clips"] for batch in loader.training(5, 0, 5)]))
    assert torch.equal(*taken) and not copy.exists()
