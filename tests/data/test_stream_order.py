"""A continuous video: every frame once, in its place, whatever the world, and from any step on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hpcvideo.data import ClipLoader, ClipView
from hpcvideo.data.stream_order import StreamOrder, count_parts
from hpcvideo.shards import ShardSet

FRAMES, AHEAD = 3, 1


def shown(shards: ShardSet, size: int, ranks: int, first: int, last: int) -> list[list[tuple[int, int, list[int]]]]:
    """Of each place of the global batch, clip after clip: (epoch, video, frame numbers)."""
    lengths = [shards.video(number).num_frames for number in range(len(shards))]
    view = ClipView(frames=FRAMES + AHEAD, size=16, sampling="stream", crop="center", short_side=32, flip=False,
                    future_frames=AHEAD)  # fmt: skip
    places: list[list[tuple[int, int, list[int]]]] = [[] for _ in range(size)]
    for rank in range(ranks):
        order = StreamOrder(count_parts(lengths, FRAMES, AHEAD))
        with ClipLoader(shards, view, rank=rank, world_size=ranks, workers=0, order=order) as loader:
            for batch in loader.training(size, first, last):
                rows = zip(batch["epochs"].tolist(), batch["samples"].tolist(), batch["frame_numbers"].tolist(), strict=True)
                for place, row in enumerate(rows, start=rank * size // ranks):
                    places[place].append(row)
    return places


def row_of(shards: ShardSet) -> list[tuple[int, list[int]]]:
    """All clips of one pass: (video, frame numbers), by going through the set as one would by hand."""
    row = []
    for number in range(len(shards)):
        at, length = 0, shards.video(number).num_frames
        while at + FRAMES + AHEAD <= length:
            row.append((number, list(range(at, at + FRAMES + AHEAD))))
            at += FRAMES
    return row


def test_one_viewer_sees_the_set_from_its_first_frame_to_its_last_and_begins_anew(shard_folder: Path) -> None:
    shards = ShardSet(shard_folder / "train")
    row = row_of(shards)
    seen = shown(shards, 1, 1, 0, len(row) + 5)[0]
    assert [(video, numbers) for _, video, numbers in seen] == row + row[:5]
    assert [epoch for epoch, _, _ in seen] == [0] * len(row) + [1] * 5
    fed = [(video, frame) for _, video, numbers in seen[: len(row)] for frame in numbers[:FRAMES]]
    assert len(fed) == len(set(fed)), "no frame twice in a pass"


def test_several_viewers_share_the_set_and_ranks_only_share_the_viewers(shard_folder: Path) -> None:
    shards = ShardSet(shard_folder / "train")
    row = row_of(shards)
    size, steps = 4, 9
    alone = shown(shards, size, 1, 0, steps)
    for place, seen in enumerate(alone):
        begin = place * len(row) // size
        assert [(video, numbers) for _, video, numbers in seen] == [row[(begin + step) % len(row)] for step in range(steps)]
    assert shown(shards, size, 2, 0, steps) == alone
    assert shown(shards, size, 1, 5, steps) == [seen[5:] for seen in alone], "a resumed run goes on at the right frame"


def test_a_video_that_is_too_short_for_a_part_is_passed_over() -> None:
    counts = count_parts([7, 3, 4, 6, 0], FRAMES, AHEAD)
    assert counts == (2, 0, 1, 1, 0)
    order = StreamOrder(counts)
    videos = [int(order.batch(step, 1, slice(0, 1))[1][0]) for step in range(5)]
    parts = [int(order.parts(step, 1, slice(0, 1))[0]) for step in range(5)]
    assert list(zip(videos, parts, strict=True)) == [(0, 0), (0, 1), (2, 0), (3, 0), (0, 0)]
    with pytest.raises(ValueError, match="row of 4 parts"):
        order.batch(0, 5, slice(0, 5))
    with pytest.raises(ValueError, match="cannot be replaced"):
        order.replacement(0, 0, 1)


def test_the_crop_stays_where_it_is_while_a_video_lasts(shard_folder: Path) -> None:
    """A random crop and mirror are drawn once a video and pass, not once a part."""
    shards = ShardSet(shard_folder / "train")
    lengths = [shards.video(number).num_frames for number in range(len(shards))]
    order = StreamOrder(count_parts(lengths, FRAMES, AHEAD))
    view = ClipView(frames=FRAMES + AHEAD, size=16, sampling="stream", short_side=32, future_frames=AHEAD)
    with ClipLoader(shards, view, workers=0, order=order, seed=5) as loader:
        batches = list(loader.training(1, 0, 12))
    for before, after in pairwise(batches):
        if before["samples"] == after["samples"]:
            # The frame behind the part is the first one of the next part.
            np.testing.assert_array_equal(before["clips"][0, FRAMES], after["clips"][0, 0])
