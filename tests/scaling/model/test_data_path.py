"""Demand on storage and cores, loading, waiting and staging: against published arithmetic and step-by-step simulations."""

from __future__ import annotations

import heapq
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.scaling.model.data_path import (
    DataFacts,
    LoadSeconds,
    data_demand,
    data_wait,
    load_seconds,
    staged_bytes,
    staging_seconds,
)
from tests.scaling.model.example_system import MORE_IS_FASTER, MORE_IS_SLOWER, VALUES, changed

KINETICS = DataFacts(frames_per_clip=8, bytes_per_frame=16.5e3, set_bytes=1.19e12)


def test_kinetics_in_14_minutes_asks_for_881_frames_a_second_of_each_of_256_nodes() -> None:
    demand = data_demand(KINETICS, 240_436 * 100 / 853, 256, VALUES)  # arXiv 1910.00932: 100 epochs in 14 min 13 s
    assert demand.node_frames_per_second == pytest.approx(881, rel=0.001)
    assert demand.opens_per_second == pytest.approx(225.5e3, rel=0.001)
    assert demand.node_bytes_per_second == pytest.approx(14.5e6, rel=0.01)
    assert demand.shared_bytes_per_second == pytest.approx(3.7e9, rel=0.01)
    assert demand.node_cores == pytest.approx(881 / 2000, rel=0.001)
    assert demand.cores_share == pytest.approx(881 / 2000 / 40, rel=0.001)
    assert demand.local_share == pytest.approx(14.5e6 / 5.5e9, rel=0.01)
    assert demand.shared_share == pytest.approx(3.7e9 / 500e9, rel=0.01)  # 256 x 10 GB/s is more than there is
    alone = data_demand(KINETICS, 100, 1, VALUES)
    assert alone.shared_share == pytest.approx(100 * 132e3 / 10e9)


def test_small_reads_of_the_shared_file_system_bind_where_it_answers_fewer_than_frames_are_needed() -> None:
    values = {**VALUES, "pfs_reads_per_second": 100e3}
    # 48 nodes that read 1.12 million frames a second, one read each, of a system that answers 100,000.
    demand = data_demand(KINETICS, 140e3, 48, values)
    assert demand.reads_per_second == 1.12e6 and demand.reads_share == pytest.approx(11.2)
    assert data_demand(KINETICS, 140e3, 48, VALUES).reads_share is None
    # 800 frames on each of 48 nodes: 38,400 reads in 0.384 s, though their bytes would take 1.3 ms.
    assert load_seconds(KINETICS, 100, 48, 4, 2, "shared", values).read == pytest.approx(0.384)
    assert load_seconds(KINETICS, 100, 48, 4, 2, "shared", values, cached=0.75).read == pytest.approx(0.096)
    assert load_seconds(KINETICS, 100, 48, 4, 2, "local", values).read == pytest.approx(100 * 132e3 / 5.5e9)
    fast = {**VALUES, "pfs_reads_per_second": 1e9}
    assert load_seconds(KINETICS, 100, 48, 4, 2, "shared", fast) == load_seconds(KINETICS, 100, 48, 4, 2, "shared", VALUES)


def test_loading_is_decoding_over_cores_or_reading_over_the_tier_s_bandwidth() -> None:
    load = load_seconds(KINETICS, 100, 1, 4, 2, "local", VALUES)
    assert load == LoadSeconds(800 / (2000 * 8), 100 * 132e3 / 5.5e9, 0.4)
    assert load.total == load.decode
    # 64 workers share the node's 40 cores; without workers the 4 ranks decode themselves.
    assert load_seconds(KINETICS, 100, 1, 4, 16, "local", VALUES).decode == pytest.approx(800 / (2000 * 40))
    assert load_seconds(KINETICS, 100, 1, 4, 0, "local", VALUES).decode == pytest.approx(800 / (2000 * 4))
    # One node reads 10 GB/s, 200 nodes an equal part of 500 GB/s.
    assert load_seconds(KINETICS, 100, 1, 4, 2, "shared", VALUES).read == pytest.approx(100 * 132e3 / 10e9)
    assert load_seconds(KINETICS, 100, 200, 4, 2, "shared", VALUES).read == pytest.approx(100 * 132e3 / 2.5e9)
    assert load_seconds(KINETICS, 100, 200, 4, 2, "shared", VALUES, cached=0.75).read == pytest.approx(25 * 132e3 / 2.5e9)
    assert load_seconds(KINETICS, 100, 200, 4, 2, "memory", VALUES).read == 0


@pytest.mark.parametrize(("load", "step"), [(0.5, 0.3), (0.2, 0.3), (0.3, 0.3)])
def test_waiting_is_what_a_consumer_of_a_prefetched_queue_waits(load: float, step: float) -> None:
    prefetch, rounds = 2, 400
    ready: list[float] = []  # when each batch is loaded
    taken: list[float] = []  # when the trainer took it
    clock = waited = 0.0
    for number in range(rounds):
        room = taken[number - prefetch] if number >= prefetch else 0.0  # a place in the queue is free
        ready.append(max(room, ready[-1] if ready else 0.0) + load)
        begin = max(clock, ready[number])
        if number >= rounds // 2:
            waited += begin - clock
        taken.append(begin)
        clock = begin + step
    expected = data_wait(LoadSeconds(load, load / 2, load), step, workers_per_rank=1)
    assert waited / (rounds - rounds // 2) == pytest.approx(expected, abs=1e-9)


def test_without_workers_the_step_waits_for_all_of_it() -> None:
    assert data_wait(LoadSeconds(0.2, 0.1, 0.2), 1.0, workers_per_rank=0) == pytest.approx(0.3)


def ring_seconds(set_bytes: float, nodes: int, values: Any, chunks: int) -> float:
    """Every chunk read by one node, handed round the ring and written by all: when the last one is written.

    An event simulation: each reader, link and disk serves chunks in the order in which they come to it.
    """
    size = set_bytes / chunks
    read = size / min(values["pfs_node_read"], values["pfs_read"] / nodes)
    hand, write = size / values["inter_bandwidth"], size / values["nvme_write"]
    events = [((chunk // nodes + 1) * read, chunk % nodes, 0) for chunk in range(chunks)]  # (time, node, hops so far)
    heapq.heapify(events)
    link_free, disk_free = [0.0] * nodes, [0.0] * nodes
    while events:
        time, node, hops = heapq.heappop(events)
        disk_free[node] = max(disk_free[node], time) + write
        if hops < nodes - 1:
            link_free[node] = max(link_free[node], time) + hand
            heapq.heappush(events, (link_free[node] + values["inter_latency"], (node + 1) % nodes, hops + 1))
    return max(disk_free)


@pytest.mark.parametrize("nodes", [1, 2, 5])
@pytest.mark.parametrize("slowest", ["pfs_read", "inter_bandwidth", "nvme_write"])
def test_a_broadcast_takes_as_long_as_chunks_that_travel_round_a_ring_one_by_one(nodes: int, slowest: str) -> None:
    values = changed(slowest, 1e-3)
    expected = ring_seconds(1e10, nodes, values, chunks=4000)
    assert staging_seconds(DataFacts(8, 1.0, 1e10), nodes, "broadcast", values) == pytest.approx(expected, rel=0.02)


def test_a_partition_is_read_and_written_by_each_node_alone() -> None:
    assert staging_seconds(KINETICS, 256, "partition", VALUES) == pytest.approx(1.19e12 / 500e9)  # the system's 500 GB/s
    assert staging_seconds(KINETICS, 10, "partition", VALUES) == pytest.approx(1.19e11 / 2.1e9)  # a node's disk
    assert staging_seconds(KINETICS, 10, "partition", VALUES, to="memory") == pytest.approx(1.19e11 / 10e9)
    assert staged_bytes(KINETICS, 256, "partition") == pytest.approx(4.65e9, rel=0.001)
    assert staged_bytes(KINETICS, 256, "broadcast") == 1.19e12


@given(
    key=st.sampled_from((*MORE_IS_FASTER, *MORE_IS_SLOWER)),
    factor=st.floats(1.0, 100.0),
    nodes=st.integers(1, 1000),
    source=st.sampled_from(("shared", "local", "memory")),
    workers=st.integers(0, 20),
)
def test_a_faster_system_never_loads_or_stages_slower(
    key: str, factor: float, nodes: int, source: Any, workers: int
) -> None:
    slower, faster = VALUES, changed(key, factor)
    if key in MORE_IS_SLOWER:
        slower, faster = faster, slower
    before, after = (load_seconds(KINETICS, 64, nodes, 4, workers, source, values) for values in (slower, faster))
    assert after.total <= before.total and after.core_seconds <= before.core_seconds
    assert data_wait(after, 0.01, workers) <= data_wait(before, 0.01, workers)
    modes: tuple[Any, ...] = ("broadcast", "partition")
    places: tuple[Any, ...] = ("local", "memory")
    for mode, to in itertools.product(modes, places):
        assert staging_seconds(KINETICS, nodes, mode, faster, to) <= staging_seconds(KINETICS, nodes, mode, slower, to)


@given(
    nodes=st.integers(1, 1000),
    more=st.integers(0, 1000),
    clips=st.integers(1, 100),
    workers=st.integers(1, 20),
    cached=st.floats(0, 1),
)
def test_more_clips_nodes_or_misses_never_load_faster_and_more_workers_never_slower(
    nodes: int, more: int, clips: int, workers: int, cached: float
) -> None:
    def total(clips: int, nodes: int, workers: int, cached: float) -> float:
        return load_seconds(KINETICS, clips, nodes, 4, workers, "shared", VALUES, cached).total

    base = total(clips, nodes, workers, cached)
    assert base <= total(clips + more, nodes, workers, cached)
    assert base <= total(clips, nodes + more, workers, cached) * (1 + 1e-12)  # the parallel file system is shared
    assert base <= total(clips, nodes, workers, cached / 2)
    assert base >= total(clips, nodes, workers + more, cached)
