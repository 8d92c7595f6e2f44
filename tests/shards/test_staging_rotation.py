"""From epoch to epoch: the next one's shards come, those of past epochs go, room and limit are kept to."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcvideo.shards.staging.leaders import lone_leader
from hpcvideo.shards.staging.rotation import Rotation, RotationReport
from hpcvideo.shards.staging.stage import Staging
from tests.shards.staged_sets import OpenCounter, write_set

NEEDED = {0: [0, 1], 1: [2, 3], 2: [4, 5], 3: [0, 5]}
SIZE = 1_000_000


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[tuple[Path, Staging]]:
    """A set of six shards with those of epoch 0 on the node."""
    write_set(tmp_path / "shared", [SIZE] * 6)
    staging = Staging(tmp_path / "shared", tmp_path / "node", lone_leader("n0"), "partition", [NEEDED[0]])
    staging.prepare()
    staging.copy()
    yield tmp_path / "shared", staging
    staging.close()


def start(
    staged: tuple[Path, Staging], limit: int | None, needed: Callable[[int], list[int]] = NEEDED.__getitem__
) -> tuple[Rotation, queue.SimpleQueue[RotationReport]]:
    reports: queue.SimpleQueue[RotationReport] = queue.SimpleQueue()
    shared, staging = staged
    return Rotation(shared, staging.local, needed, 3, limit, reports.put), reports


def here(staging: Staging) -> set[int]:
    return {int(path.stem[-5:]) for path in staging.local.path.glob("shard-*.h5")}


def test_without_a_limit_only_the_present_and_the_next_epoch_are_here(staged: tuple[Path, Staging]) -> None:
    shared, staging = staged
    rotation, reports = start(staged, None)
    with OpenCounter(shared) as opened:
        for epoch in range(3):
            rotation.advance(epoch)
            report = reports.get(timeout=30)
            assert (report.epoch, report.failure) == (epoch + 1, None)
            assert here(staging) == {*NEEDED[epoch], *NEEDED[epoch + 1]}
        assert opened.counts() == {f"shard-{shard:05d}.h5": 2 if shard == 0 else 1 for shard in (0, 2, 3, 4, 5)} | {
            "shard-00000.h5": 1
        }
    rotation.stop()
    for shard in here(staging):
        name = f"shard-{shard:05d}.h5"
        assert (staging.local.path / name).read_bytes() == (shared / name).read_bytes()


def test_a_limit_keeps_past_shards_as_long_as_they_fit(staged: tuple[Path, Staging]) -> None:
    _, staging = staged
    rotation, reports = start(staged, 5 * SIZE)
    rotation.advance(0)
    assert reports.get(timeout=30).removed_shards == 0 and here(staging) == {0, 1, 2, 3}
    rotation.advance(1)
    assert reports.get(timeout=30).removed_shards == 1 and here(staging) == {1, 2, 3, 4, 5}
    rotation.stop()


def test_what_does_not_fit_is_left_out_until_the_next_epoch(staged: tuple[Path, Staging]) -> None:
    _, staging = staged
    rotation, reports = start(staged, 3 * SIZE)
    rotation.advance(0)
    assert reports.get(timeout=30).copied_shards == 1 and here(staging) == {0, 1, 2}
    rotation.advance(1)
    assert reports.get(timeout=30).copied_shards == 2 and here(staging) == {2, 3, 4}
    rotation.stop()


def test_a_wrong_shard_ends_the_rotation_with_its_reason(staged: tuple[Path, Staging]) -> None:
    shared, staging = staged
    (shared / "shard-00003.h5").write_bytes(bytes(SIZE))
    rotation, reports = start(staged, None)
    rotation.advance(0)
    report = reports.get(timeout=30)
    assert report.failure is not None and "its SHA-256 is" in report.failure
    assert here(staging) == {0, 1, 2}
    rotation.advance(1)
    rotation.stop()
    assert reports.empty()
