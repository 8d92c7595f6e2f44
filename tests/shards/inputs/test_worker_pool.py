"""Decoding in worker processes: what a video does to its decoder costs that video and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs import worker_pool
from hpcvideo.shards.inputs.decode import encode_video
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.inputs.worker_pool import DecodedVideo, WorkerPool
from hpcvideo.shards.records import StoredFrame

from ..generated import moving_square, source_of, write_video

SECONDS = 60.0


def workers_of(process: int) -> list[psutil.Process]:
    """The decode workers among the children of a process that live, the oldest first."""
    children = [child for child in psutil.Process(process).children() if child.status() != psutil.STATUS_ZOMBIE]
    return sorted((child for child in children if "hpcvideo.shards.inputs.worker" in child.cmdline()), key=lambda c: c.pid)


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def stuck(tmp_path: Path) -> Source:
    """A source on which a worker hangs for good: a pipe that nobody writes into."""
    os.mkfifo(tmp_path / "stuck.mp4")
    return source_of(tmp_path / "stuck.mp4")


def reads_the_pipe(worker: psutil.Process) -> bool:
    """Whether the worker waits in open() of the pipe: it sleeps and its socket holds no job any more."""
    return Path(f"/proc/{worker.pid}/wchan").read_text().startswith(("fifo_open", "wait_for_partner"))


def take_all(pool: WorkerPool, number: int) -> Iterator[tuple[str, str, list[StoredFrame]]]:
    for _ in range(number):
        video = pool.take()
        assert video is not None
        yield video.source.id, video.reason, list(video.frames())


def test_videos_come_in_the_order_asked_for_as_one_process_decodes_them(videos, tmp_path):
    sources = [source_of(videos / f"clip{index}.mp4") for index in (8, 0, 3, 1, 7, 2, 5, 4, 6)]
    with WorkerPool(sources, Encoding(), 3, SECONDS, tmp_path) as pool:
        for source, (name, reason, frames) in zip(sources, take_all(pool, len(sources)), strict=True):
            expected: list[StoredFrame] = []
            encode_video(source, Encoding(), expected.append)
            assert (name, reason) == (source.id, "")
            assert frames == expected


def test_a_video_that_kills_its_worker_twice_is_given_up_and_the_others_are_not(videos, stuck, tmp_path):
    sources = [source_of(videos / "clip0.mp4"), stuck, source_of(videos / "clip1.mp4")]
    killed: list[int] = []

    def kill_what_is_stuck() -> None:
        for number in (signal.SIGKILL, signal.SIGSEGV):
            fresh: list[psutil.Process] = []
            wait_for(lambda: fresh.extend(w for w in workers_of(os.getpid()) if w.pid not in killed) or fresh, "no worker")  # noqa: B023
            wait_for(lambda: reads_the_pipe(fresh[0]), "the worker does not take the video")  # noqa: B023
            killed.append(fresh[0].pid)
            fresh[0].send_signal(number)

    with WorkerPool(sources, Encoding(), 1, SECONDS, tmp_path) as pool:
        killer = threading.Thread(target=kill_what_is_stuck)
        killer.start()
        found = list(take_all(pool, 3))
        killer.join()
    assert [(name, reason) for name, reason, _ in found] == [
        ("clip0.mp4", ""), ("stuck.mp4", "the decoder crashed (SIGSEGV)"), ("clip1.mp4", ""),
    ]  # fmt: skip
    assert [len(frames) for *_, frames in found] == [8, 0, 10]


def test_a_video_whose_worker_was_killed_once_is_decoded_by_another(tmp_path):
    path = write_video(tmp_path / "long.mp4", moving_square(300, 320, 240, 1))
    expected: list[StoredFrame] = []
    encode_video(source_of(path), Encoding(), expected.append)

    def kill_in_mid_video() -> None:
        wait_for(lambda: workers_of(os.getpid()), "no worker")
        (worker,) = workers_of(os.getpid())
        wait_for(lambda: any(str(path) == opened.path for opened in worker.open_files()), "the video is not opened")
        worker.kill()

    with WorkerPool([source_of(path)], Encoding(), 1, SECONDS, tmp_path) as pool:
        killer = threading.Thread(target=kill_in_mid_video)
        killer.start()
        ((_, reason, frames),) = take_all(pool, 1)
        killer.join()
    assert reason == ""
    assert frames == expected


@pytest.mark.parametrize("stop", [False, True])
def test_a_decoder_that_hangs_is_killed_after_its_time(videos, stuck, tmp_path, stop):
    sources = [stuck, source_of(videos / "clip1.mp4")]
    seen: list[psutil.Process] = []

    def stop_it() -> None:
        wait_for(lambda: workers_of(os.getpid()), "no worker")
        seen.extend(workers_of(os.getpid()))
        wait_for(lambda: reads_the_pipe(seen[0]), "the worker does not hang")
        if stop:  # then not even its own exit would be heard
            seen[0].suspend()

    with WorkerPool(sources, Encoding(), 1, 2.0, tmp_path) as pool:
        stopper = threading.Thread(target=stop_it)
        stopper.start()
        found = list(take_all(pool, 2))
        stopper.join()
    assert [(name, reason) for name, reason, _ in found] == [("stuck.mp4", "took longer than 2 s"), ("clip1.mp4", "")]
    assert not seen[0].is_running()


def test_a_video_that_goes_on_and_on_is_given_up_after_its_time_though_frames_come(videos, tmp_path):
    picture = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)  # noise takes long to encode
    long = write_video(tmp_path / "long.mp4", np.broadcast_to(picture, (900, 480, 640, 3)))
    sources = [source_of(videos / "clip1.mp4"), source_of(long), source_of(videos / "clip1.mp4")]
    with WorkerPool(sources, Encoding(short_side=480, quality=100), 1, 0.5, tmp_path) as pool:
        found = list(take_all(pool, 3))
    assert [reason for _, reason, _ in found] == ["", "took longer than 0.5 s", ""]
    assert found[1][2] == []


def test_a_defect_of_the_decoder_costs_its_video(videos, tmp_path):
    # A folder where a file is said to be is not foreseen by any reader of files.
    (tmp_path / "folder").mkdir()
    wrong = Source("odd", tmp_path / "folder", (), 0, False, span=("no", "numbers"))  # type: ignore[arg-type]
    with WorkerPool([wrong, source_of(videos / "clip1.mp4")], Encoding(), 1, SECONDS, tmp_path) as pool:
        first, second = take_all(pool, 2)
    assert first[1]
    assert (second[1], len(second[2])) == ("", 10)


def test_workers_are_replaced_after_so_many_videos(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_pool, "_VIDEOS_PER_WORKER", 2)
    seen = set()
    with WorkerPool([source_of(videos / "clip0.mp4")] * 7, Encoding(), 1, SECONDS, tmp_path) as pool:
        for _ in range(7):
            video = pool.take()
            assert video is not None
            assert video.facts is not None
            seen |= {worker.pid for worker in workers_of(os.getpid())}
    assert len(seen) >= 3
    assert not workers_of(os.getpid())


def test_a_large_video_lies_in_an_unnamed_file_and_keeps_its_order(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", moving_square(240, 320, 240, 1))
    expected: list[StoredFrame] = []
    encode_video(source_of(path), Encoding(quality=100), expected.append)
    total = sum(len(frame.jpeg) for frame in expected)
    monkeypatch.setattr(worker_pool, "_HELD_BYTES", 3 << 20)
    assert total > 6 << 20
    with WorkerPool([source_of(path)], Encoding(quality=100), 1, SECONDS, tmp_path) as pool:
        video = pool.take()
        assert isinstance(video, DecodedVideo)
        assert sum(map(len, video._held)) <= 3 << 20
        assert list(tmp_path.iterdir()) == [path]
        assert list(video.frames()) == expected


def test_videos_are_decoded_only_so_far_ahead(videos, tmp_path):
    asked: list[int] = []

    def sources() -> Iterator[Source]:
        for index in range(100):
            asked.append(index)
            yield source_of(videos / "clip0.mp4")

    with WorkerPool(sources(), Encoding(), 2, SECONDS, tmp_path) as pool:
        for taken in range(1, 5):
            assert pool.take() is not None
            time.sleep(0.3)
            assert len(asked) <= taken + 2 * 2 + 1


def test_a_full_disk_under_the_spool_is_told(tmp_path, monkeypatch):
    path = write_video(tmp_path / "long.mp4", moving_square(60, 320, 240, 1))
    monkeypatch.setattr(worker_pool, "_HELD_BYTES", 0)
    with WorkerPool([source_of(path)], Encoding(), 1, SECONDS, Path("/dev/full")) as pool, pytest.raises(OSError):
        pool.take()


def test_leaving_the_pool_ends_workers_in_the_midst_of_a_video(stuck, tmp_path):
    with WorkerPool([stuck] * 3, Encoding(), 2, SECONDS, tmp_path) as pool:
        begin = time.monotonic()
        assert pool.take(lambda: len(workers_of(os.getpid())) == 2 and time.monotonic() > begin + 1) is None
    wait_for(lambda: not workers_of(os.getpid()), "a worker lives on")


_POOL = """
import sys
from pathlib import Path
from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.inputs.worker_pool import WorkerPool
path = Path(sys.argv[1])
with WorkerPool([Source("a", path, (), 0, False)] * 4, Encoding(), 2, 600, path.parent) as pool:
    pool.take()
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_workers_of_a_killed_builder_end_by_themselves_even_if_they_hang(stuck, stopped):
    builder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(_POOL), stuck.path])
    wait_for(lambda: len(workers_of(builder.pid)) == 2, "no workers")
    workers = workers_of(builder.pid)
    for worker in workers:
        wait_for(lambda worker=worker: reads_the_pipe(worker), "the worker does not hang")
        if stopped:
            worker.suspend()
    builder.kill()
    builder.wait()
    wait_for(lambda: not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers), "an orphan lives on")


def test_workers_do_not_heed_the_signals_of_a_launcher(videos, tmp_path):
    sources = [source_of(videos / f"clip{index % 9}.mp4") for index in range(20)]
    with WorkerPool(sources, Encoding(), 2, SECONDS, tmp_path) as pool:
        found = []
        for index in range(20):
            video = pool.take()
            assert video is not None
            found.append(video.reason)
            for worker in workers_of(os.getpid()):
                worker.send_signal((signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)[index % 3])
    assert found == [""] * 20


def test_a_worker_loads_neither_torch_nor_mpi():
    check = (
        "import sys, hpcvideo.shards.inputs.worker; "
        "sys.exit(any(name.partition('.')[0] in ('torch', 'mpi4py', 'deepspeed') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
