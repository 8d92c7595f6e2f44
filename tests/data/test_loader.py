"""The loader: equal clips for any number of workers and ranks, from the first step or a later one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hpcvideo.data import Batch, ClipLoader, ClipView
from hpcvideo.data.sample_order import global_batch
from hpcvideo.errors import OperationFailed
from hpcvideo.shards import ShardSet

VIEW = ClipView(frames=4, size=24, short_side=32)


def take(folder: Path, size: int, first: int, last: int, **options: int) -> list[Batch]:
    with ClipLoader(ShardSet(folder), VIEW, seed=5, **options) as loader:
        return list(loader.training(size, first, last))


def joined(batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    return (
        torch.cat([batch["clips"] for batch in batches]),
        torch.cat([batch["labels"] for batch in batches]),
        [video for batch in batches for video in batch["ids"]],
    )


@pytest.fixture(scope="module")
def reference(shard_folder: Path) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    return joined(take(shard_folder / "train", 12, 0, 5, workers=0))


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_workers_and_ranks_do_not_change_a_clip(
    shard_folder: Path, reference: tuple[torch.Tensor, torch.Tensor, list[str]], workers: int, world_size: int
) -> None:
    ranks = [
        take(shard_folder / "train", 12, 0, 5, workers=workers, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    clips, labels, ids = joined([ranks[rank][step] for step in range(5) for rank in range(world_size)])
    assert torch.equal(clips, reference[0]) and torch.equal(labels, reference[1]) and ids == reference[2]


def test_a_later_start_goes_on_with_the_same_batches(
    shard_folder: Path, reference: tuple[torch.Tensor, torch.Tensor, list[str]]
) -> None:
    clips, _, ids = joined(take(shard_folder / "train", 12, 3, 5, workers=2))
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
            with ClipLoader(shards, VIEW, rank=rank, world_size=world_size) as loader:
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


def test_a_flipped_byte_stops_the_loader_and_names_the_frame(shard_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "set"
    shutil.copytree(shard_folder / "validation", folder)
    shards = ShardSet(folder)
    offset = (folder / shards.manifest.shards[0].file).read_bytes().find(b"\xff\xd8\xff") + 200
    with (folder / shards.manifest.shards[0].file).open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))
    view = ClipView(frames=14, size=24, short_side=32)
    with (
        ClipLoader(ShardSet(folder), view, workers=2) as loader,
        pytest.raises(OperationFailed, match=r"shard-00000\.h5.*frame 0"),
    ):
        list(loader.evaluation(4))
