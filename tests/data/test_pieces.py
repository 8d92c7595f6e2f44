"""Clips delivered piece by piece: the clips themselves, cut in time; whoever decodes, on whatever rank."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hpcvideo.data import ClipLoader, ClipView
from hpcvideo.data.batch import take_micro_batches
from hpcvideo.data.rand_augment import RandAugment
from hpcvideo.shards import ShardSet

WHOLE = ClipView(frames=9, size=24, short_side=32, sampling="dense", window=18, rand_augment=RandAugment())
CUTS = ((0, 4), (4, 7), (7, 9))
VIEW = replace(WHOLE, pieces=(CUTS,), test_pieces=CUTS)


def take(
    folder: Path, view: ClipView, first: int = 0, last: int = 3, size: int = 6, micro: int | None = 2, **options: Any
) -> list[Any]:
    with ClipLoader(ShardSet(folder), view, seed=5, **{"worker_kind": "thread", **options}) as loader:
        return list(loader.training(size, first, last, micro))


def joined(pieces: list[Any]) -> Tensor:
    return torch.cat([piece["clips"] for piece in pieces], dim=1)


@pytest.mark.parametrize(("kind", "workers"), [("thread", 0), ("thread", 2), ("spawn", 2)])
@pytest.mark.parametrize("ranks", [1, 3])
def test_the_pieces_of_a_clip_are_the_clip(shard_folder: Path, kind: str, workers: int, ranks: int) -> None:
    folder = shard_folder / "train"
    for rank in range(ranks if kind == "thread" else 1):
        same = {"rank": rank, "world_size": ranks, "workers": workers, "worker_kind": kind}
        whole, found = take(folder, WHOLE, **same), take(folder, VIEW, **same)
        assert len(found) == len(CUTS) * len(whole)
        for number, clip in enumerate(whole):
            pieces = found[number * len(CUTS) : (number + 1) * len(CUTS)]
            told = [(one["piece"], one["pieces"], one["ends"]) for one in pieces]
            assert told == [(0, 3, False), (1, 3, False), (2, 3, True)]
            assert torch.equal(joined(pieces), clip["clips"])
            assert torch.equal(torch.cat([one["frame_numbers"] for one in pieces], dim=1), clip["frame_numbers"])
            for one in pieces:
                assert one["ids"] == clip["ids"] and torch.equal(one["labels"], clip["labels"])


def test_pieces_may_be_steps_of_their_own_and_begin_in_the_middle_of_a_clip(shard_folder: Path) -> None:
    folder = shard_folder / "train"
    whole = take(folder, WHOLE, 1, 2)
    found = take(folder, replace(VIEW, piece_steps=True), 4, 6)  # pieces 1 and 2 of global batch 1, in 3 micro-batches each
    assert [(one["piece"], one["ends"]) for one in found] == [(1, True)] * 3 + [(2, True)] * 3
    for number, (first, end) in ((0, CUTS[1]), (1, CUTS[2])):
        for micro in range(3):
            assert torch.equal(found[3 * number + micro]["clips"], whole[micro]["clips"][:, first:end])


def test_lengths_rotate_by_the_epoch_of_the_batch_on_every_rank_alike(shard_folder: Path) -> None:
    folder = shard_folder / "train"
    view = replace(VIEW, pieces=(CUTS, ((0, 6), (6, 8))))
    assert len(ShardSet(folder)) == 25  # so global batches 0 to 4 begin in the first epoch, 5 to 7 in the second
    for rank in range(2):
        found = take(folder, view, 0, 8, micro=None, rank=rank, world_size=2)
        assert [one["pieces"] for one in found] == [3] * 15 + [2] * 6
        assert [one["clips"].shape[1] for one in found[15:]] == [6, 2] * 3


def test_scored_clips_come_in_pieces_too(shard_folder: Path) -> None:
    shards = ShardSet(shard_folder / "validation")
    with ClipLoader(shards, WHOLE, workers=0) as whole, ClipLoader(shards, VIEW, workers=0) as cut:
        pieces = list(cut.evaluation(4))
        for number, clip in enumerate(whole.evaluation(4)):
            own = pieces[3 * number : 3 * number + 3]
            assert torch.equal(joined(own), clip["clips"]) and torch.equal(own[2]["weights"], clip["weights"])


def test_targets_of_a_later_piece_see_the_frame_before_it(shard_folder: Path) -> None:
    told: list[Tensor] = []

    def targets(samples: Tensor, numbers: Tensor) -> Mapping[str, Any]:
        told.append(numbers)
        return {"seen": numbers.clone()}

    found = take(shard_folder / "train", VIEW, 0, 1, targets=targets, workers=0)
    assert [numbers.shape[1] for numbers in told[:3]] == [4, 4, 3]
    assert torch.equal(found[1]["seen"][:, 0], found[0]["frame_numbers"][:, -1])
    assert torch.equal(found[1]["seen"][:, 1:], found[1]["frame_numbers"])


def test_memory_does_not_grow_with_the_number_of_pieces(shard_folder: Path) -> None:
    """By the buffers that the loader has made: of one size each, and used again."""
    sizes = {}
    for pieces in (2, 20):
        cuts = tuple((4 * number, 4 * number + 4) for number in range(pieces))
        view = ClipView(frames=4 * pieces, size=24, short_side=32, sampling="dense", window=4 * pieces, pieces=(cuts,))
        with ClipLoader(ShardSet(shard_folder / "train"), view, workers=1, worker_kind="thread") as loader:
            for _ in loader.training(4, 0, 3):
                pass
            workers: Any = loader.start()
            sizes[pieces] = sum(buffer.nbytes for buffer in workers._memory._buffers)
    assert sizes[20] <= sizes[2] <= 6 * 4 * 4 * 24 * 24 * 3


def test_all_pieces_of_a_clip_agree_on_what_replaces_it(shard_folder: Path, tmp_path: Path) -> None:
    """A byte of one frame is changed: every piece of that clip, the sound ones too, comes from the same other video."""
    folder = tmp_path / "set"
    shutil.copytree(shard_folder / "train", folder)
    shards = ShardSet(folder)
    jpeg = shards.read_jpegs(4, [2])[0]
    shard = folder / "shard-00000.h5"
    content = bytearray(shard.read_bytes())
    content[content.index(jpeg) + len(jpeg) // 2] ^= 0x10
    shard.write_bytes(content)
    all_frames = ClipView(frames=14, size=24, short_side=32)
    cut = replace(all_frames, pieces=(((0, 5), (5, 10), (10, 14)),))
    with ClipLoader(shards, all_frames, workers=0, on_bad_clip="skip", max_bad_videos=1) as loader:
        whole = list(loader.training(len(shards), 0, 1))
        assert len(loader.take_bad_clips()) == 1
    with ClipLoader(shards, cut, workers=0, on_bad_clip="skip", max_bad_videos=1) as loader:
        found = list(loader.training(len(shards), 0, 1))
        assert len(loader.take_bad_clips()) == 1, "told once, not by every piece"
    assert torch.equal(joined(found), whole[0]["clips"])
    assert all(np.array_equal(one["samples"], whole[0]["samples"]) for one in found)


def test_micro_batches_are_counted_and_not_their_pieces(shard_folder: Path) -> None:
    for view, each in ((WHOLE, 1), (VIEW, 3)):
        with ClipLoader(ShardSet(shard_folder / "train"), view, workers=0) as loader:
            batches = loader.training(6, 0, 2, 2)
            assert len(list(take_micro_batches(batches, 2))) == 2 * each
            assert len(list(batches)) == 4 * each
