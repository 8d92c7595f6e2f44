"""The clip loader: shards in, uint8 batches out, ahead of the step that needs them."""

from __future__ import annotations

import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcvideo.data.batch import Batch
from hpcvideo.data.batch_plan import BatchPlan, evaluation_plans, training_plans
from hpcvideo.data.clip_cutter import STAGES, ClipSource
from hpcvideo.data.clip_tasks import BadClip, ClipDone, ClipTask, Workers
from hpcvideo.data.clip_view import ClipView
from hpcvideo.data.sample_order import GlobalOrder, SampleOrder, Views, evaluation_steps, rank_slice
from hpcvideo.data.workers import start_workers
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards import ShardSet

_HELD = 2
"""Batches that a consumer may hold without a copy: in `for batch in ...` the old one lives until the new one is there."""


Targets = Callable[[Tensor, Tensor], Mapping[str, Any]]


class LoaderTiming(NamedTuple):
    """Clips since the last call, and seconds a clip of one worker by stage; `wait`: of the consumer, a clip."""

    clips: int
    seconds: dict[str, float]


@dataclass
class _Pending:
    """A batch that is being decoded. home: the free buffers of its size, where its own returns to."""

    plan: BatchPlan
    buffer: int
    memory: NDArray[np.uint8]
    home: deque[tuple[int, NDArray[np.uint8]]]
    labels: NDArray[np.int64]
    ids: list[str]
    frames: NDArray[np.int64]
    missing: int
    bad: dict[int, tuple[BadClip, ...]] = field(default_factory=dict)
    abandoned: bool = False


class ClipLoader:
    """Batches of one rank, decoded by `workers` up to `prefetch` batches ahead (0 workers: when asked).

    worker_kind: "spawn", "fork" or "thread", see `start_workers`. What a clip holds depends on (seed, epoch, sample) alone:
    neither the workers nor the world size changes it. order: by default every epoch is a permutation of the whole set.
    on_bad_clip: "stop" raises OperationFailed where stored bytes are damaged; "skip" takes another clip instead, and raises
    when this rank has met more than `max_bad_videos` different videos that are damaged. one_label: whether a video that has
    not exactly one label is an error; else `labels` has the first, or -1. targets: given `samples` and `frame_numbers` it
    makes further entries of a batch, in the process that trains; for a piece of a clip that is not its first one, the
    numbers begin with the clip's frame before it.

    Memory: at most prefetch + 3 batches (more where batches are so small that workers would idle), used again as soon as the
    consumer has let go of one. A consumer that keeps more than two gets copies of its own. Use as a context manager, or call
    `close`.
    """

    def __init__(
        self, shards: ShardSet, view: ClipView, *, seed: int = 0, rank: int = 0, world_size: int = 1, workers: int = 2,
        prefetch: int = 2, worker_kind: str = "spawn", order: SampleOrder | None = None, on_bad_clip: str = "stop",
        max_bad_videos: int = 0, one_label: bool = True, targets: Targets | None = None,
    ) -> None:  # fmt: skip
        if len(shards) == 0:
            raise InputError(f"{shards.path}: the shard set holds no video; build it from a list with sound videos")
        self.shards, self.view, self.seed = shards, view, seed
        self.rank, self.world_size, self.prefetch = rank, world_size, prefetch
        self.order = order or GlobalOrder(len(shards), seed)
        self.bad_videos: set[tuple[str, str]] = set()
        """(shard file, video) of each that was damaged, since the loader was made."""
        self._max_bad_videos = max_bad_videos
        self._new_bad: list[BadClip] = []
        self._source = ClipSource(shards, view, self.order, seed, on_bad_clip == "skip", one_label)
        self._targets = targets
        self._count, self._kind = workers, worker_kind
        self._workers: Workers | None = None
        self._free: defaultdict[int, deque[tuple[int, NDArray[np.uint8]]]] = defaultdict(deque)
        self._pending: dict[int, _Pending] = {}
        self._lives = 0  # how often it was closed: batches of an earlier life will never come
        self._batches = self._clips = 0
        self._seconds = [0.0] * len(STAGES)
        self._wait = 0.0

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> Workers:
        """Start the workers, if they do not run yet; else the first batch does it, and waits for them."""
        if self._workers is None:
            self._workers = start_workers(self._source, self._count, self._kind)
        return self._workers

    def close(self) -> None:
        """End the workers; batches not yet taken are dropped, and their iterators raise ValueError. New iterators start new
        workers."""
        if self._workers is not None:
            self._workers.close()
        self._workers = None
        self._lives += 1
        self._free.clear()
        self._pending.clear()

    def training(self, size: int, first_step: int, last_step: int, micro_batch: int | None = None) -> Iterator[Batch]:
        """This rank's part of global batches first_step .. last_step - 1 (0-based), each of `size` clips over all ranks.

        With `micro_batch` the part comes in pieces of so many clips, one after another: host memory then holds a few of
        these and not whole parts. Raises ValueError where the sizes do not divide, OperationFailed where stored bytes are
        damaged or a worker died.

        A view with pieces gives a micro-batch piece after piece; with `piece_steps` steps count pieces, and a step is one
        piece of every micro-batch.
        """
        part = rank_slice(size, self.rank, self.world_size)
        share = part.stop - part.start
        piece = micro_batch or share
        if share % piece:
            raise ValueError(f"a rank's {share} clips of a global batch do not divide into micro-batches of {piece}")
        micro_batches = [
            slice(part.start + number * piece, part.start + (number + 1) * piece) for number in range(share // piece)
        ]
        plans = training_plans(self.order, self.view, range(first_step, last_step), size, micro_batches)
        return self._run(plans, piece, training=True)

    def evaluation(self, batch: int) -> Iterator[Batch]:
        """Every video once over all ranks, with all its test views one after another, `batch` clips a rank a step.

        The same number of steps on every rank. What fills the last batches up is black and has weight 0.
        """
        plans = evaluation_plans(len(self.shards), self.view, batch, self.rank, self.world_size, self.test_views)
        return self._run(plans, batch, training=False)

    @cached_property
    def test_views(self) -> Views:
        """With how many clips each video is scored: of all as many, or int64 [videos]."""
        if self.view.window_overlap is None:
            return self.view.test_views
        lengths = (self.shards.video(index).num_frames for index in range(len(self.shards)))
        return np.array([self.view.views_of(length) for length in lengths], np.int64)

    def evaluation_steps(self, batch: int) -> int:
        """How many batches `evaluation` gives."""
        steps = evaluation_steps(len(self.shards), batch, self.world_size, self.test_views)
        return steps * max(1, len(self.view.test_pieces))

    def timing(self) -> LoaderTiming:
        """What clips cost since the last call. Stages: index (tables), read, checksum, decode, augment (crop and resize
        too), wait."""
        clips = max(1, self._clips)
        totals = zip((*STAGES, "wait"), (*self._seconds, self._wait), strict=True)
        answer = LoaderTiming(self._clips, {stage: seconds / clips for stage, seconds in totals})
        self._clips, self._seconds, self._wait = 0, [0.0] * len(STAGES), 0.0
        return answer

    def take_bad_clips(self) -> list[BadClip]:
        """The clips skipped in batches handed out since the last call."""
        taken, self._new_bad = self._new_bad, []
        return taken

    def _run(self, plans: Iterator[BatchPlan], size: int, training: bool) -> Iterator[Batch]:
        # Small batches must not leave workers idle: two clips a worker at least are in hand.
        ahead = max(self.prefetch, -(-2 * self._count // size)) if self._count else 0
        waiting: deque[_Pending] = deque()
        held: set[int] = set()
        life: int | None = None
        try:
            while True:
                if life is None:
                    life = self._lives
                elif life != self._lives:
                    raise ValueError("the loader was closed since this iterator began; ask it for a new one")
                while len(waiting) <= ahead and (plan := next(plans, None)) is not None:
                    waiting.append(self._begin(plan, training))
                if not waiting:
                    return
                began = perf_counter()
                while waiting[0].missing:
                    self._take(self._results())
                self._wait += perf_counter() - began
                yield self._finish(waiting.popleft(), held, training)
        finally:
            for pending in waiting:
                pending.abandoned = True
                if not pending.missing:
                    pending.home.append((pending.buffer, pending.memory))

    def _begin(self, plan: BatchPlan, training: bool) -> _Pending:
        workers, count = self.start(), len(plan.samples)
        first, wanted = (0, 0) if plan.piece is None else (plan.piece.first, plan.piece.end - plan.piece.first)
        shape = (count, *self.view.clip_shape(training, wanted))
        home = self._free[int(np.prod(shape))]
        buffer, memory = home.popleft() if home else workers.new_buffer(int(np.prod(shape)))
        number, self._batches = self._batches, self._batches + 1
        places = np.flatnonzero(plan.weights).tolist()
        if len(places) < count:
            memory.reshape(shape)[plan.weights == 0] = 0
        frames = np.zeros((count, shape[1] + (first > 0)), np.int64)
        pending = _Pending(plan, buffer, memory, home, np.zeros(count, np.int64), [""] * count, frames, len(places))
        self._pending[number] = pending
        rows = zip(plan.samples.tolist(), plan.epochs.tolist(), plan.views.tolist(), strict=True)
        awaited = set(places[-max(1, self._count) :])
        tasks = [
            ClipTask(number, buffer, place, *row, place in awaited, first, wanted) for place, row in enumerate(rows)
        ]
        workers.submit([tasks[place] for place in places])
        return pending

    def _results(self) -> list[ClipDone]:
        try:
            return self.start().results(wait=True)
        except Exception:
            self.close()
            raise

    def _take(self, results: list[ClipDone]) -> None:
        for done in results:
            pending = self._pending[done.batch]
            pending.labels[done.place], pending.ids[done.place] = done.label, done.id
            pending.plan.samples[done.place], pending.frames[done.place] = done.sample, done.frames
            if done.bad:
                pending.bad[done.place] = done.bad
            pending.missing -= 1
            self._clips += 1
            for stage, seconds in enumerate(done.seconds):
                self._seconds[stage] += seconds
            if not pending.missing:
                del self._pending[done.batch]
                if pending.abandoned:
                    pending.home.append((pending.buffer, pending.memory))

    def _finish(self, pending: _Pending, held: set[int], training: bool) -> Batch:
        piece = pending.plan.piece
        for place in sorted(pending.bad):
            if piece is None or piece.number == 0:  # every piece of a clip tells of it
                self._count_bad(pending.bad[place])
            if not pending.ids[place]:
                pending.plan.weights[place] = 0
        wanted = 0 if piece is None else piece.end - piece.first
        frames = pending.memory.reshape(-1, *self.view.clip_shape(training, wanted))
        if len(held) < _HELD:
            held.add(pending.buffer)
            weakref.finalize(frames, _let_go, held, pending.home, pending.buffer, pending.memory).atexit = False
        else:
            frames = frames.copy()
            pending.home.append((pending.buffer, pending.memory))
        batch = Batch(
            clips=torch.from_numpy(frames).permute(0, 1, 4, 2, 3),
            labels=torch.from_numpy(pending.labels),
            weights=torch.from_numpy(pending.plan.weights),
            ids=pending.ids,
            views=torch.from_numpy(pending.plan.views),
            samples=torch.from_numpy(pending.plan.samples),
            epochs=torch.from_numpy(pending.plan.epochs),
            frame_numbers=torch.from_numpy(pending.frames)[:, -frames.shape[1] :],
        )
        if self._targets is not None:
            batch.update(self._targets(batch["samples"], torch.from_numpy(pending.frames)))  # type: ignore[typeddict-item]
        if piece is not None:
            batch.update({"piece": piece.number, "pieces": piece.of, "ends": piece.ends})
        return batch

    def _count_bad(self, bad: tuple[BadClip, ...]) -> None:
        for clip in bad:
            self.bad_videos.add((clip.shard, clip.video))
            self._new_bad.append(clip)
            if len(self.bad_videos) > self._max_bad_videos:
                raise OperationFailed(bad_videos_sentence(len(self.bad_videos), self._max_bad_videos, clip.sentence))


def bad_videos_sentence(count: int, allowed: int, last: str) -> str:
    """What to say when more videos were bad than data.max_bad_videos allows."""
    videos = "1 video" if count == 1 else f"{count} videos"
    return f"{videos} could not be read, data.max_bad_videos allows {allowed}; the last: {last}"


def _let_go(
    held: set[int], home: deque[tuple[int, NDArray[np.uint8]]], buffer: int, memory: NDArray[np.uint8]
) -> None:
    held.discard(buffer)
    home.append((buffer, memory))
