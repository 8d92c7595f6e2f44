"""Worker processes: real kills, real signals, the memory they share, and what is left behind (nothing)."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from hpcvideo.data import ClipLoader, ClipView
from hpcvideo.data.worker_processes import WorkerProcesses
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards import ShardSet
from hpcvideo.shards.build import build_shards

pytestmark = pytest.mark.forks

VIEW = ClipView(frames=4, size=24, short_side=32)
BOTH = pytest.mark.parametrize("kind", ["fork", "spawn"])


def processes(loader: ClipLoader) -> list[int]:
    workers = loader.start()
    assert isinstance(workers, WorkerProcesses)
    return workers.process_ids


def gone(process: int, seconds: float = 20.0) -> bool:
    """Whether it ends (a zombie has ended) within so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def loader(shard_folder: Path, kind: str) -> Iterator[ClipLoader]:
    with ClipLoader(ShardSet(shard_folder / "train"), VIEW, seed=5, workers=3, worker_kind=kind) as loader:
        yield loader


@BOTH
def test_a_killed_worker_is_an_error_in_one_sentence_and_ends_the_others(loader: ClipLoader) -> None:
    batches = loader.training(12, 0, 100_000)
    next(batches)
    first, *others = processes(loader)
    os.kill(first, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(OperationFailed) as raised:
        for _ in batches:
            pass
    assert time.monotonic() - began < 20, "no hang"
    sentence = str(raised.value)
    assert f"data worker 0 of 3 (process {first}) was killed by SIGKILL" in sentence and "memory" in sentence
    assert "\n" not in sentence
    assert all(gone(process) for process in others)


@BOTH
def test_a_worker_killed_while_the_consumer_waits_is_noticed(shard_folder: Path, kind: str) -> None:
    """One worker and a stopped one at that: the consumer waits in the loader when the kill comes."""
    with ClipLoader(ShardSet(shard_folder / "train"), VIEW, workers=1, worker_kind=kind) as loader:
        batches = loader.training(12, 0, 100_000)
        next(batches)
        (only,) = processes(loader)
        os.kill(only, signal.SIGSTOP)
        subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(0.7); os.kill({only}, 9)"])
        with pytest.raises(OperationFailed, match="killed by SIGKILL"):
            for _ in batches:
                pass


@BOTH
def test_signals_to_the_whole_job_leave_the_workers_to_the_trainer(loader: ClipLoader) -> None:
    """From the first moment on: a batch system may signal before a worker has begun."""
    workers = processes(loader)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        for process in workers:
            os.kill(process, number)
    batches = list(loader.training(12, 0, 4))
    assert len(batches) == 4 and processes(loader) == workers
    for number in (signal.SIGTERM, signal.SIGUSR2):
        for process in workers:
            os.kill(process, number)
    assert len(list(loader.training(12, 4, 6))) == 2


_PARENT = """
import sys, time
from hpcvideo.data import ClipLoader, ClipView
from hpcvideo.shards import ShardSet
shards, view = ShardSet(sys.argv[1]), ClipView(4, 24, short_side=32)
loaders = [ClipLoader(shards, view, workers=2, worker_kind=sys.argv[2]) for _ in range(2)]
endless = [loader.training(12, 0, 10**9) for loader in loaders]
for batches in endless:
    next(batches)
print(*(process for loader in loaders for process in loader.start().process_ids), flush=True)
time.sleep(100)
"""  # no `if __name__ == "__main__"`: users' scripts have none


@BOTH
def test_workers_end_when_the_parent_is_killed(shard_folder: Path, tmp_path: Path, kind: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(_PARENT)
    parent = subprocess.Popen([sys.executable, script, shard_folder / "train", kind], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(number) for number in parent.stdout.readline().split()]
    assert len(workers) == 4 and all(psutil.pid_exists(process) for process in workers)
    parent.kill()
    assert all(gone(process) for process in workers)
    parent.wait()


@BOTH
def test_closing_ends_the_workers_and_leaves_nothing_behind(shard_folder: Path, kind: str) -> None:
    own = psutil.Process()
    named = {area.path for area in own.memory_maps() if area.path.startswith("/dev/shm/")}
    with ClipLoader(ShardSet(shard_folder / "train"), VIEW, workers=2, worker_kind=kind) as loader:
        next(loader.training(12, 0, 1000))  # two more batches are under way
        workers = processes(loader)
        shared = [area.path for process in (own.pid, *workers) for area in psutil.Process(process).memory_maps()]
        assert {path for path in shared if path.startswith("/dev/shm/")} <= named, "no shared memory with a name"
        assert any("memfd:hpcvideo-batch" in path for path in shared)
    assert not any(psutil.pid_exists(process) for process in workers), "ended and waited for"
    gc.collect()
    before = own.num_fds()
    for _ in range(2):
        loader = ClipLoader(ShardSet(shard_folder / "train"), VIEW, workers=2, worker_kind=kind)
        next(loader.training(12, 0, 1000))
        workers = processes(loader)
        del loader  # forgotten, not closed
        gc.collect()
        assert all(gone(process) for process in workers)
        assert own.num_fds() == before


@BOTH
def test_batches_are_used_again_when_let_go_and_never_before(loader: ClipLoader) -> None:
    """Flat memory for a consumer that lets go; unchanged batches for one that keeps some, all, or only a slice."""
    addresses = set()
    for batch in loader.training(12, 0, 40):
        addresses.add(batch["clips"].data_ptr())
    assert len(addresses) <= loader.prefetch + 3
    reference = [batch["clips"].clone() for batch in loader.training(12, 0, 40)]
    kept = []
    for step, batch in enumerate(loader.training(12, 0, 40)):
        if step % 3 == 0:
            kept.append((step, batch["clips"][2:5]))  # a view: it keeps the whole batch
    assert all(torch.equal(clips, reference[step][2:5]) for step, clips in kept)
    everything = list(loader.training(12, 0, 40))
    assert all(torch.equal(batch["clips"], clips) for batch, clips in zip(everything, reference, strict=True))
    assert len({batch["clips"].data_ptr() for batch in everything}) == 40
    maps = psutil.Process(processes(loader)[0]).memory_maps(grouped=False)
    shared = [area for area in maps if "memfd:hpcvideo-batch" in area.path]
    assert len(shared) <= 2 * (loader.prefetch + 3), "who keeps batches gets copies, and shared memory stays as it is"


@BOTH
def test_an_iterator_that_is_given_up_does_not_disturb_the_next(loader: ClipLoader) -> None:
    reference = [batch["clips"].clone() for batch in loader.training(12, 0, 3)]
    for _ in range(5):
        next(loader.training(12, 7, 1000))
    two = [loader.training(12, 0, 3), loader.training(12, 0, 3)]
    for expected in reference:
        for batches in two:
            assert torch.equal(next(batches)["clips"], expected)


def test_a_video_with_two_labels_is_the_user_s_error_in_any_worker(shard_folder: Path, tmp_path: Path) -> None:
    folders = sorted((shard_folder / "train-frames").glob("*/*"))[:3]
    lines = [f"{folder.relative_to(shard_folder / 'train-frames')} {len(list(folder.iterdir()))} 0 1" for folder in folders]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    build_shards(shard_folder / "train-frames", tmp_path / "set", tmp_path / "list.txt")
    for kind in ("thread", "fork", "spawn"):
        with (
            ClipLoader(ShardSet(tmp_path / "set"), VIEW, workers=2, worker_kind=kind) as loader,
            pytest.raises(InputError, match="needs exactly one"),
        ):
            next(loader.training(3, 0, 1))


def test_a_defect_in_a_worker_keeps_its_traceback(shard_folder: Path) -> None:
    view = ClipView(frames=4, size=24, sampling="dense", window=2, short_side=32)  # what the config refuses
    with (
        ClipLoader(ShardSet(shard_folder / "train"), view, workers=2) as loader,
        pytest.raises(RuntimeError, match="a data worker failed: ValueError: a window of 2 frames") as raised,
    ):
        next(loader.training(3, 0, 1))
    assert "clip_sampling.py" in raised.value.__notes__[0]


def test_a_spawned_worker_loads_neither_torch_nor_what_needs_it() -> None:
    """Half a second and 70 MB instead of many: Summit has 42 cores a node."""
    script = (
        "import sys, hpcvideo.data.worker; "
        "print([name for name in ('torch', 'deepspeed', 'mpi4py', 'pydantic', 'matplotlib') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_memory_of_eight_workers_stays_flat(shard_folder: Path) -> None:
    """Resident memory of all processes once each has cut clips of three epochs, and after six more."""

    def used(loader: ClipLoader) -> int:
        return sum(psutil.Process(process).memory_info().rss for process in (os.getpid(), *processes(loader)))

    shards = ShardSet(shard_folder / "train")
    view = ClipView(frames=8, size=112, short_side=128)
    with ClipLoader(shards, view, workers=8) as loader:
        idle = set(processes(loader))  # a busy machine may start the last ones late
        while idle:
            for _ in loader.training(25, 0, 3):
                pass
            idle -= {process for process in idle if psutil.Process(process).memory_info().shared > 50 << 20}
        for _ in loader.training(25, 0, 3):
            pass
        first = used(loader)
        for _ in loader.training(25, 3, 9):
            pass
        assert used(loader) < 1.02 * first


def test_small_batches_leave_no_worker_idle(shard_folder: Path) -> None:
    with ClipLoader(
        ShardSet(shard_folder / "train"), VIEW, workers=4, prefetch=1, worker_kind="fork"
    ) as loader:
        batches = loader.training(1, 0, 1000)
        next(batches)
        assert loader._batches == 9, "two clips a worker are in hand beside the one that was taken"


def test_more_tasks_than_a_pipe_holds_are_handed_over_bit_by_bit(shard_folder: Path) -> None:
    """A batch of 40,000 tiny clips: 1.6 MB of tasks."""
    view = ClipView(frames=1, size=8, short_side=32)
    with ClipLoader(
        ShardSet(shard_folder / "train"), view, workers=2, prefetch=1, worker_kind="fork"
    ) as loader:
        batch = next(loader.training(40_000, 0, 1))
    assert len(batch["ids"]) == 40_000 and all(batch["ids"])
