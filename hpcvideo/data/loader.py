"""The clip loader: shards in, uint8 batches out, ahead of the step that needs them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcvideo.data.augment import CropBox, center_crop, mirror, multi_scale_crop
from hpcvideo.data.clip_sampling import dense_frames, segment_frames
from hpcvideo.data.sample_order import evaluation_batch, evaluation_steps, global_batch, rank_slice
from hpcvideo.distributed.keyed_random import KeyedStream
from hpcvideo.errors import InputError
from hpcvideo.shards import ShardSet

_CLIP_PURPOSE = 2  # keeps the draws of a clip apart from those of the order


class Batch(TypedDict):
    """clips uint8 [batch, frames, 3, height, width] (channels last in memory), labels int64 [batch],
    weights float32 [batch] (0 for the padding of an evaluation), ids: the videos' names."""

    clips: Tensor
    labels: Tensor
    weights: Tensor
    ids: list[str]


@dataclass(frozen=True)
class ClipView:
    """How a clip is cut from a video: `frames` frames of `size` x `size` pixels; the rest as in config.DataConfig."""

    frames: int
    size: int
    sampling: str = "segments"
    window: int = 64
    crop: str = "multi_scale"
    short_side: int = 256
    flip: bool = True

    def choose_frames(self, num_frames: int, stream: KeyedStream | None) -> NDArray[np.int64]:
        """Frame numbers of the clip, int64 [frames]; random with a stream, the fixed evaluation choice without."""
        if self.sampling == "dense":
            return dense_frames(num_frames, self.frames, self.window, stream)
        return segment_frames(num_frames, self.frames, stream)

    def choose_box(self, width: int, height: int, stream: KeyedStream | None) -> CropBox:
        """The crop of the clip, one for all its frames; centred and not mirrored without a stream."""
        if stream is None or self.crop == "center":
            box = center_crop(width, height, self.size, self.short_side)
        else:
            box = multi_scale_crop(width, height, self.size, stream)
        return mirror(box, stream) if stream is not None and self.flip else box


class ClipLoader:
    """Batches of one rank, decoded by `workers` threads up to `prefetch` batches ahead (0 workers: when asked).

    Threads suffice because decoding (simplejpeg), resizing (OpenCV) and reading (pread) all drop the interpreter lock.
    What a clip holds depends on (seed, epoch, sample) alone: neither worker count nor world size changes it.
    Use as a context manager, or call `close`.
    """

    def __init__(
        self, shards: ShardSet, view: ClipView, *, seed: int = 0, rank: int = 0, world_size: int = 1, workers: int = 2,
        prefetch: int = 2,
    ) -> None:  # fmt: skip
        if len(shards) == 0:
            raise InputError(f"{shards.path}: the shard set holds no video; build it from a list with sound videos")
        self.shards, self.view, self.seed = shards, view, seed
        self.rank, self.world_size, self.prefetch = rank, world_size, prefetch
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode") if workers else None

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the decoding threads; batches not yet taken are dropped."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def training(self, size: int, first_step: int, last_step: int) -> Iterator[Batch]:
        """This rank's part of global batches first_step .. last_step - 1 (0-based), each of `size` clips over all ranks.

        Raises ValueError where `size` does not divide over the ranks, OperationFailed where stored bytes are damaged.
        """
        part = rank_slice(size, self.rank, self.world_size)

        def plan(step: int) -> tuple[NDArray[np.int64], NDArray[np.int64] | None, NDArray[np.float32]]:
            epochs, samples = global_batch(len(self.shards), self.seed, step, size)
            return samples[part], epochs[part], np.ones(part.stop - part.start, np.float32)

        return self._run_ahead(plan, range(first_step, last_step))

    def evaluation(self, batch: int) -> Iterator[Batch]:
        """Every video once over all ranks, `batch` clips a rank a step, the same number of steps on every rank.

        What fills the last batches up is black and has weight 0.
        """

        def plan(step: int) -> tuple[NDArray[np.int64], NDArray[np.int64] | None, NDArray[np.float32]]:
            samples, weights = evaluation_batch(len(self.shards), step, batch, self.rank, self.world_size)
            return samples, None, weights

        return self._run_ahead(plan, range(evaluation_steps(len(self.shards), batch, self.world_size)))

    def _run_ahead(self, plan, steps: range) -> Iterator[Batch]:  # type: ignore[no-untyped-def]
        waiting: deque[tuple[Batch, list[Future[None]]]] = deque()
        for step in steps:
            waiting.append(self._start(*plan(step)))
            if len(waiting) > (self.prefetch if self._threads else 0):
                yield self._finish(*waiting.popleft())
        while waiting:
            yield self._finish(*waiting.popleft())

    def _start(
        self, samples: NDArray[np.int64], epochs: NDArray[np.int64] | None, weights: NDArray[np.float32]
    ) -> tuple[Batch, list[Future[None]]]:
        size = self.view.size
        frames = np.zeros((len(samples), self.view.frames, size, size, 3), np.uint8)
        labels = np.zeros(len(samples), np.int64)
        ids = [""] * len(samples)
        batch = Batch(
            clips=torch.from_numpy(frames).permute(0, 1, 4, 2, 3),
            labels=torch.from_numpy(labels),
            weights=torch.from_numpy(weights),
            ids=ids,
        )

        def fill(place: int) -> None:
            sample = int(samples[place])
            stream = None if epochs is None else KeyedStream(_CLIP_PURPOSE, self.seed, int(epochs[place]), sample)
            labels[place], ids[place] = self._fill_clip(sample, stream, frames[place])

        places = [place for place in range(len(samples)) if weights[place] > 0]
        if self._threads is None:
            for place in places:
                fill(place)
            return batch, []
        return batch, [self._threads.submit(fill, place) for place in places]

    def _finish(self, batch: Batch, decoding: list[Future[None]]) -> Batch:
        for clip in decoding:
            clip.result()
        return batch

    def _fill_clip(self, sample: int, stream: KeyedStream | None, out: NDArray[np.uint8]) -> tuple[int, str]:
        """Decode one clip into `out`, uint8 [frames, size, size, 3]; gives its label and id."""
        video = self.shards.video(sample)
        if len(video.labels) != 1:
            raise InputError(
                f"{self.shards.path}: video {video.id} has {len(video.labels)} labels, but this task needs exactly one; "
                "build the set from a list with one label a video"
            )
        chosen = self.view.choose_frames(video.num_frames, stream)
        box = self.view.choose_box(video.width, video.height, stream)
        for frame, place in zip(self.shards.read(sample, chosen.tolist()), out, strict=True):
            box.cut(frame, self.view.size, place)
        return video.labels[0], video.id
