"""The loader: equal clips for any number of workers and ranks, from the first step or a later one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcvideo.data import Batch, ClipLoader, ClipView
from hpcvideo.data.clip_cutter import STAGES
from hpcvideo.data.rand_augment import RandAugment
from hpcvideo.data.sample_order import epoch_permutation, global_batch
from hpcvideo.shards import ShardSet

pytestmark = pytest.mark.forks

VIEW = ClipView(frames=4, size=24, short_side=32)


def take(folder: Path, size: int, first: int, last: int, micro_batch: int | None = None, **options: Any) -> list[Batch]:
    with ClipLoader(ShardSet(folder), VIEW, seed=5, **{"worker_kind": "thread", **options}) as loader:
        return list(loader.training(size, first, last, micro_batch))


def joined(batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    return (
        torch.cat([batch["clips"] for batch in batches]),
        torch.cat([batch["labels"] for batch in batches]),
        [video for batch in batches for video in batch["ids"]],
    )


@pytest.fixture(scope="module")
def reference(shard_folder: Path) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    return joined(take(shard_folder / "train", 12, 0, 5, workers=0))


KINDS = [("thread", 0), ("thread", 1), ("thread", 3), ("fork", 1), ("fork", 3), ("spawn", 1), ("spawn", 3)]


@pytest.mark.parametrize(("kind", "workers"), KINDS)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_workers_and_ranks_do_not_change_a_clip(
    shard_folder: Path, reference: tuple[torch.Tensor, torch.Tensor, list[str]], kind: str, workers: int, world_size: int
) -> None:
    if kind == "spawn" and world_size not in (1, 3):
        pytest.skip("starts interpreters; two world sizes show it")
    ranks = [
        take(shard_folder / "train", 12, 0, 5, workers=workers, worker_kind=kind, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    clips, labels, ids = joined([ranks[rank][step] for step in range(5) for rank in range(world_size)])
    assert torch.equal(clips, reference[0]) and torch.equal(labels, reference[1]) and ids == reference[2]


@pytest.mark.parametrize("micro_batch", [1, 2, 6])
def test_micro_batches_are_the_batch_in_pieces(
    shard_folder: Path, reference: tuple[torch.Tensor, torch.Tensor, list[str]], micro_batch: int
) -> None:
    ranks = [
        take(shard_folder / "train", 12, 1, 5, micro_batch, workers=2, rank=rank, world_size=2) for rank in range(2)
    ]
    each = 6 // micro_batch
    assert all(len(batch["ids"]) == micro_batch for rank in ranks for batch in rank)
    ordered = [
        batch for step in range(4) for rank in ranks for batch in rank[step * each : (step + 1) * each]
    ]
    clips, labels, ids = joined(ordered)
    assert torch.equal(clips, reference[0][12:]) and torch.equal(labels, reference[1][12:]) and ids == reference[2][12:]
    with (
        pytest.raises(ValueError, match=r"6 clips .* do not divide into micro-batches of 4"),
        ClipLoader(ShardSet(shard_folder / "train"), VIEW, world_size=2) as loader,
    ):
        loader.training(12, 0, 1, 4)


def test_a_later_start_goes_on_with_the_same_batches(
    shard_folder: Path, reference: tuple[torch.Tensor, torch.Tensor, list[str]]
) -> None:
    clips, _, ids = joined(take(shard_folder / "train", 12, 3, 5, workers=2, worker_kind="fork"))
    assert torch.equal(clips, reference[0][36:]) and ids == reference[2][36:]


def test_batches_hold_the_ordered_videos_as_uint8_with_their_labels(shard_folder: Path) -> None:
    shards = ShardSet(shard_folder / "train")
    for step, batch in enumerate(take(shard_folder / "train", 12, 0, 5)):
        assert batch["clips"].shape == (12, 4, 3, 24, 24) and batch["clips"].dtype == torch.uint8
        _, samples = global_batch(len(shards), 5, step, 12)
        assert batch["ids"] == [shards.video(int(sample)).id for sample in samples]
        assert batch["labels"].tolist() == [shards.video(int(sample)).labels[0] for sample in samples]
        # The class is the bright third of the picture, so the decoded pixels tell whether clip and label belong together.
        assert [video.split("/")[0] for video in batch["ids"]] == [
            ("left", "middle", "right")[label] for label in batch["labels"]
        ]


def test_a_sample_looks_different_in_the_next_epoch(shard_folder: Path) -> None:
    videos = len(ShardSet(shard_folder / "train"))
    first, second = take(shard_folder / "train", videos, 0, 2)
    places = [second["ids"].index(video) for video in first["ids"]]
    equal = sum(torch.equal(clip, second["clips"][place]) for clip, place in zip(first["clips"], places, strict=True))
    assert sorted(first["ids"]) == sorted(second["ids"]) and equal < videos / 5


def test_evaluation_counts_every_video_once_on_any_number_of_ranks(shard_folder: Path) -> None:
    alone: dict[str, torch.Tensor] = {}
    for world_size in (1, 2, 3):
        seen: dict[str, torch.Tensor] = {}
        for rank in range(world_size):
            shards = ShardSet(shard_folder / "validation")
            with ClipLoader(shards, VIEW, rank=rank, world_size=world_size, worker_kind="fork") as loader:
                for batch in loader.evaluation(4):
                    for clip, weight, video in zip(batch["clips"], batch["weights"], batch["ids"], strict=True):
                        if weight == 1:
                            assert video not in seen
                            seen[video] = clip
                        else:
                            assert weight == 0 and not clip.any() and video == ""
        alone = alone or seen
        assert seen.keys() == alone.keys() and len(seen) == 11
        assert all(torch.equal(seen[video], alone[video]) for video in seen)


def test_a_crop_is_cut_where_its_box_says(shard_folder: Path) -> None:
    """Against plain slicing of the decoded frames: a centre crop of the stored size needs no resize."""
    shards = ShardSet(shard_folder / "validation")
    view = ClipView(frames=3, size=32, short_side=32, crop="center", flip=False)
    with ClipLoader(shards, view, workers=0) as loader:
        batch = next(loader.evaluation(11))
    for index in range(11):
        count = shards.video(index).num_frames
        frames = shards.read(index, [((2 * k + 1) * count) // 6 for k in range(3)])
        assert np.array_equal(batch["clips"][index].numpy(), frames[:, :, 8:40].transpose(0, 3, 1, 2))


def test_a_start_in_the_ten_thousandth_epoch_replays_nothing(shard_folder: Path) -> None:
    """By the number of permutations that are made: those of the epochs that the batch touches."""
    videos = len(ShardSet(shard_folder / "train"))
    epoch_permutation.cache_clear()
    batch = take(shard_folder / "train", videos, 10_000, 10_001, workers=0)[0]
    assert epoch_permutation.cache_info().misses == 1
    samples = epoch_permutation(videos, 5, 10_000)
    assert batch["ids"] == [ShardSet(shard_folder / "train").video(int(sample)).id for sample in samples]


def test_test_views_are_the_frames_and_crops_of_their_definitions(shard_folder: Path) -> None:
    """Two clips by three crops at full resolution, against slicing the decoded frames by hand."""
    shards = ShardSet(shard_folder / "validation")
    view = ClipView(frames=3, size=24, short_side=32, test_clips=2, test_crops=3, full_resolution=True)
    seen: dict[tuple[str, int], torch.Tensor] = {}
    for rank in range(2):
        with ClipLoader(shards, view, rank=rank, world_size=2, worker_kind="thread") as loader:
            for batch in loader.evaluation(4):
                assert batch["clips"].shape == (4, 3, 3, 32, 32)
                rows = zip(batch["ids"], batch["views"].tolist(), batch["weights"], batch["clips"], strict=True)
                seen |= {(video, number): clip for video, number, weight, clip in rows if weight}
    assert len(seen) == 11 * 6
    for index in range(11):
        video = shards.video(index)
        for clip in range(2):
            half = 1 - clip  # centres of the segments first, then their starts
            frames = shards.read(index, [((2 * k + half) * video.num_frames) // 6 for k in range(3)])
            for crop, left in enumerate((0, 16, 8)):
                expected = frames[:, :, left : left + 32].transpose(0, 3, 1, 2)
                assert np.array_equal(seen[video.id, clip * 3 + crop].numpy(), expected)


def test_a_mirrored_clip_has_the_label_of_its_mirror_image(shard_folder: Path) -> None:
    """The bright third of the pixels tells left from right, whatever the label says."""
    view = ClipView(frames=4, size=24, short_side=32, crop="center", flip=True, mirrored_labels=((0, 2), (2, 0)))
    with ClipLoader(ShardSet(shard_folder / "train"), view, seed=5, workers=0) as loader:
        batches = list(loader.training(25, 0, 4))
    changed = 0
    for batch in batches:
        for clip, label, video in zip(batch["clips"], batch["labels"].tolist(), batch["ids"], strict=True):
            columns = clip.float().mean(dim=(0, 1, 2))
            thirds = [float(columns[:4].mean()), float(columns[8:16].mean()), float(columns[20:].mean())]
            assert int(np.argmax(thirds)) == label
            changed += ("left", "middle", "right")[label] != video.split("/")[0]
    assert 20 < changed < 60  # half of the two directed thirds of 100 clips


def test_rand_augment_is_keyed_by_the_sample_and_changes_pixels(shard_folder: Path) -> None:
    plain = ClipView(frames=4, size=24, short_side=32)
    view = ClipView(frames=4, size=24, short_side=32, rand_augment=RandAugment(2, 9))
    taken = []
    for one, kind, workers in ((plain, "thread", 0), (view, "thread", 0), (view, "fork", 2)):
        with ClipLoader(ShardSet(shard_folder / "train"), one, seed=5, worker_kind=kind, workers=workers) as loader:
            taken.append(next(iter(loader.training(25, 0, 1)))["clips"])
    assert torch.equal(taken[1], taken[2])
    changed = [not torch.equal(*pair) for pair in zip(taken[0], taken[1], strict=True)]
    assert sum(changed) > 15


def test_the_stages_of_a_clip_are_timed(shard_folder: Path) -> None:
    for kind, workers in (("thread", 0), ("thread", 2), ("fork", 2)):
        shards = ShardSet(shard_folder / "train")
        with ClipLoader(shards, VIEW, worker_kind=kind, workers=workers) as loader:
            began = time.perf_counter()
            for _ in loader.training(12, 0, 4):
                pass
            passed = time.perf_counter() - began
            timing = loader.timing()
            assert timing.clips == 48 and set(timing.seconds) == {*STAGES, "wait"}
            assert all(seconds > 0 for seconds in timing.seconds.values())
            assert 48 * sum(timing.seconds[stage] for stage in STAGES) < passed * max(1, workers)
            assert 48 * timing.seconds["wait"] < passed
            assert loader.timing().clips == 0
