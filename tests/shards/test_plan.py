"""The plan: every video once, and nothing of it depends on ranks or on the order of the list."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.errors import InputError
from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.plan import (
    STORED_BYTES_PER_PIXEL,
    STORED_OVER_SOURCE_BYTES,
    PlannedShard,
    assign_to_ranks,
    plan_digest,
    plan_shards,
    stored_bytes,
)


def sources_of(sizes: list[int]) -> list[Source]:
    return [Source(f"class{i % 3}/v{i}.mp4", Path(f"v{i}.mp4"), (i % 3,), size, i % 4 == 0) for i, size in enumerate(sizes)]


sizes = st.lists(st.integers(0, 5000), min_size=1, max_size=60)


@given(sizes, st.integers(1, 20000), st.none() | st.integers(1, 10), st.integers(0, 2**40), st.randoms())
def test_every_video_is_planned_once_whatever_the_order_of_the_list(sizes, shard_bytes, per_shard, seed, shuffle):
    sources = sources_of(sizes)
    shards = plan_shards(sources, Encoding(), shard_bytes, per_shard, seed)
    planned = [source for shard in shards for source in shard.sources]
    assert sorted(planned, key=lambda source: source.id) == sorted(sources, key=lambda source: source.id)
    assert [shard.index for shard in shards] == list(range(len(shards)))
    for shard in shards:
        assert shard.estimated_bytes == sum(stored_bytes(source, Encoding()) for source in shard.sources)
        assert len(shard.sources) == 1 or shard.estimated_bytes <= shard_bytes
        assert per_shard is None or len(shard.sources) <= per_shard
    shuffle.shuffle(sources)
    assert plan_shards(sources, Encoding(), shard_bytes, per_shard, seed) == shards


@given(sizes, st.integers(1, 20000), st.integers(1, 9))
def test_ranks_share_the_shards_without_loss(sizes, shard_bytes, ranks):
    shards = plan_shards(sources_of(sizes), Encoding(), shard_bytes, None, 0)
    assigned = assign_to_ranks(shards, ranks)
    assert len(assigned) == ranks
    assert sorted(shard.index for mine in assigned for shard in mine) == [shard.index for shard in shards]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(2, 3))
def test_the_balance_keeps_to_grahams_bound_of_the_best_one(loads, ranks):
    shards = [PlannedShard(index, (), load, "") for index, load in enumerate(loads)]
    assigned = assign_to_ranks(shards, ranks)
    largest = max(sum(shard.estimated_bytes for shard in mine) for mine in assigned)
    best = min(
        max(sum(load for load, rank in zip(loads, chosen, strict=True) if rank == each) for each in range(ranks))
        for chosen in itertools.product(range(ranks), repeat=len(loads))
    )
    assert 3 * ranks * largest <= (4 * ranks - 1) * best  # LPT: 4/3 - 1/(3 ranks), Graham 1969


def test_the_shuffle_depends_on_the_seed_and_mixes_classes():
    sources = sources_of([10] * 300)
    sources.sort(key=lambda source: source.labels)
    first = plan_shards(sources, Encoding(), 10**9, 30, 0)
    assert first != plan_shards(sources, Encoding(), 10**9, 30, 1)
    assert all(len({source.labels for source in shard.sources}) == 3 for shard in first)


def test_the_order_of_seed_0_is_fixed_for_ever():
    (shard,) = plan_shards(sources_of([1] * 6), Encoding(), 10**9, None, 0)
    assert [source.id[-5] for source in shard.sources] == list("501342")


def test_the_digest_tells_inputs_and_options_apart():
    def digest(sources: list[Source], quality: int = 85, names: tuple[str, ...] = ("a",)) -> str:
        return plan_digest(plan_shards(sources, Encoding(quality=quality), 10**6, 4, 0), names)

    sources = sources_of([5, 6, 7, 8, 9, 10])
    other_size = sources_of([5, 6, 7, 8, 9, 11])
    digests = [digest(sources), digest(other_size), digest(sources, quality=80), digest(sources[:-1])]
    assert len({*digests, digest(sources, names=("b",))}) == 5
    random.Random(0).shuffle(sources)
    assert digest(sources) == digests[0]


def test_videos_count_with_what_their_frames_will_take():
    folder, file = sources_of([10**6, 10**6])
    assert [stored_bytes(source, Encoding()) for source in (folder, file)] == [10**6, STORED_OVER_SOURCE_BYTES * 10**6]
    # A third of the frames of what is taken for 30 frames a second; all of a folder of 5.
    assert stored_bytes(file, Encoding(store_fps=10)) == STORED_OVER_SOURCE_BYTES * 10**6 // 3 + 1
    assert stored_bytes(folder, Encoding(store_fps=10, folder_fps=5)) == 10**6
    frame = 256 * 256 * 4 / 3 * STORED_BYTES_PER_PIXEL
    assert 16_000 < frame < 17_500
    assert stored_bytes(file, Encoding(store_frames=64)) == math.ceil(64 * frame)
    assert stored_bytes(file, Encoding(store_frames=6400)) == STORED_OVER_SOURCE_BYTES * 10**6
    assert stored_bytes(replace(file, span=(1.0, 3.0)), Encoding()) == math.ceil(60 * frame)


def test_the_digest_tells_stored_frames_apart_and_equal_options_alike():
    def digest(**options: float | None) -> str:
        (shard,) = plan_shards(sources_of([1, 2]), Encoding(**options), 10**9, None, 0)
        return shard.digest

    assert digest(store_frames=None, store_fps=None) == digest()
    assert digest(store_fps=8) == digest(store_fps=8.0)
    assert len({digest(), digest(store_fps=8), digest(store_frames=8), digest(folder_fps=8), digest(short_side=128)}) == 5


@pytest.mark.parametrize(("shard_bytes", "per_shard"), [(0, None), (1, 0)])
def test_sizes_below_one_are_refused(shard_bytes, per_shard):
    with pytest.raises(InputError, match="1 or more"):
        plan_shards(sources_of([1]), Encoding(), shard_bytes, per_shard, 0)
