"""Check a shard set to the last byte, or a sample of it."""

from __future__ import annotations

import multiprocessing
import signal
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

from hpcvideo.errors import OperationFailed
from hpcvideo.shards.format import shard_index
from hpcvideo.shards.manifest import ShardEntry, file_problem, read_manifest
from hpcvideo.shards.ranks import Ranks
from hpcvideo.shards.tables import ShardTables, UnsoundShard, read_tables
from hpcvideo.shards.tools.check import Part, Problem, check_rows, check_whole, forget_opened
from hpcvideo.shards.tools.sample import Sample

_FRAMES_A_TASK = 1024
_FRAMES_A_WORKER = 10_000  # about the time a worker takes to start
_TASKS_A_WORKER = 4


@dataclass(frozen=True)
class VerifyReport:
    """What was looked at, and what is wrong; nothing is when `problems` is empty.

    frames: in the shards that could be opened; checked_frames: those looked at (all, unless `sample` says which);
    decoded: whether they were decoded too. rank: of the process that holds the report, 0 without MPI.
    """

    shards: int
    videos: int
    frames: int
    bytes: int
    decoded: bool
    sample: Sample | None
    checked_frames: int
    problems: tuple[Problem, ...]
    rank: int = 0


@dataclass(frozen=True)
class _Found:
    """What one rank found: counts, and the problems of each shard by its place in the manifest."""

    videos: int
    frames: int
    checked: int
    problems: dict[int, list[Problem]]


def verify_shards(
    folder: Path,
    decode: bool = True,
    sample: Sample | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> VerifyReport:
    """Check every shard of the set: size, SHA-256, tables, each frame's checksum and, with `decode`, that it decodes.

    With `sample` a part of each shard's frames, and no SHA-256 (it needs every byte); sizes and tables are checked all the
    same. `workers` processes share the work: unless given, one for each core that this rank has to itself, and fewer for a
    small set. Under mpiexec and `srun --mpi=pmi2` the ranks share the shards; collective there.
    `progress(done, total)` counts videos over all ranks, on rank 0. Damage is reported, not raised; InputError where
    `folder` is no finished set, OperationFailed where a worker dies.
    """
    ranks = Ranks()
    manifest = ranks.agree(lambda: read_manifest(folder))
    total = sum(entry.videos for entry in manifest.shards)
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    cores = ranks.own_cores()
    with ranks.guard(lambda: None):
        mine = [(index, entry) for index, entry in enumerate(manifest.shards) if index % ranks.size == ranks.rank]
        useful = 1 + sum(entry.frames for _, entry in mine) // _FRAMES_A_WORKER
        here = min(cores, useful) if workers is None else workers
        found = _check_shards(folder, mine, decode, sample, here, lambda: ranks.count_one(count))
        gathered = ranks.gather(found, count)
    return replace(ranks.agree(lambda: _report(folder, manifest.shards, gathered, decode, sample)), rank=ranks.rank)


def _report(
    folder: Path, entries: Sequence[ShardEntry], gathered: Sequence[_Found], decode: bool, sample: Sample | None
) -> VerifyReport:
    """Rank 0: put the ranks' findings together, in the order of shards, videos and frames."""
    listed = {entry.file for entry in entries}
    strange = [
        Problem(path.name, None, None, "not in the manifest")
        for path in sorted(folder.iterdir())
        if shard_index(path.name) is not None and path.name not in listed
    ]
    by_shard = {index: problems for found in gathered for index, problems in found.problems.items()}
    return VerifyReport(
        shards=len(entries),
        videos=sum(found.videos for found in gathered),
        frames=sum(found.frames for found in gathered),
        bytes=sum(entry.bytes for entry in entries),
        decoded=decode,
        sample=sample,
        checked_frames=sum(found.checked for found in gathered),
        problems=(*strange, *(problem for index in sorted(by_shard) for problem in by_shard[index])),
    )


def _check_shards(
    folder: Path,
    shards: Sequence[tuple[int, ShardEntry]],
    decode: bool,
    sample: Sample | None,
    workers: int,
    video_done: Callable[[], None],
) -> _Found:
    """This rank's shards. Workers are processes: threads gain nothing where little is decoded (the interpreter's lock)."""
    problems: defaultdict[int, list[Problem]] = defaultdict(list)
    videos = frames = checked = 0
    running: deque[tuple[int, ShardEntry, int, Future[Part]]] = deque()

    def take_oldest() -> None:
        nonlocal checked
        index, entry, videos_in_it, future = running.popleft()
        try:
            part = future.result()
        except BrokenProcessPool as died:
            raise OperationFailed(
                f"{folder / entry.file}: a worker process died while it checked this shard (killed, or out of memory); "
                "run again with fewer --workers"
            ) from died
        problems[index] += part.problems
        checked += part.frames
        for _ in range(videos_in_it):
            video_done()

    forget_opened()  # the files may have changed since this process last looked
    with _executor(workers) as pool:
        for index, entry in shards:
            try:
                if wrong := file_problem(folder, entry):
                    raise UnsoundShard(wrong)
                tables = read_tables(folder / entry.file)
            except UnsoundShard as unsound:
                problems[index].append(Problem(entry.file, None, None, str(unsound)))
                for _ in range(entry.videos):
                    video_done()
                continue
            videos += len(tables)
            frames += tables.frames
            running.append((index, entry, 0, pool.submit(check_whole, folder, entry, sample)))
            for rows in _tasks(tables, sample):
                running.append((index, entry, len(rows), pool.submit(check_rows, folder, entry, sample, rows, decode)))
                while len(running) > _TASKS_A_WORKER * workers:
                    take_oldest()
        while running:
            take_oldest()
    return _Found(videos, frames, checked, {index: found for index, found in problems.items() if found})


class _Here(Executor):
    """Runs a task in this process when it is handed over."""

    def submit(self, task, /, *arguments, **named):  # type: ignore[no-untyped-def]
        future: Future[Part] = Future()
        future.set_result(task(*arguments, **named))
        return future


def _executor(workers: int) -> Executor:
    """Processes of their own start from a fresh interpreter: a fork would copy MPI, and the locks of the bar's thread."""
    if workers <= 1:
        return _Here()
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_leave_interrupts_to_the_parent)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _tasks(tables: ShardTables, sample: Sample | None) -> Iterator[range]:
    """Rows of videos that are checked in one go: about _FRAMES_A_TASK frames, of a sample more."""
    limit = _FRAMES_A_TASK * (1 if sample is None else 16)
    first = filled = 0
    for row, frames in enumerate(tables.num_frames.tolist(), start=1):
        filled += frames
        if filled >= limit or row == len(tables):
            yield range(first, row)
            first, filled = row, 0
