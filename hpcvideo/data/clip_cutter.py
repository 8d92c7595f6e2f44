"""From a task to pixels: read, check, decode and crop one clip. Runs in the workers; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import cv2
import numpy as np
from numpy.typing import NDArray

from hpcvideo.data.clip_tasks import EVALUATION, BadClip, ClipDone, ClipTask
from hpcvideo.data.clip_view import ClipView
from hpcvideo.data.sample_order import SampleOrder
from hpcvideo.distributed.keyed_random import KeyedStream
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards import ShardSet
from hpcvideo.shards.clip_frames import STAGES as READ_STAGES
from hpcvideo.shards.clip_frames import DamagedFrame, FrameDecoder

ONE_LABEL_REMEDY = "build the set from a list with one label a video"
_CLIP_PURPOSE = 2  # keeps the draws of a clip apart from those of the order
_ATTEMPTS = 100

STAGES = (*READ_STAGES, "augment")
"""What the seconds of a clip are spent on, in this order."""


@dataclass(frozen=True)
class ClipSource:
    """What clips are cut from and how; goes to the workers. skip_bad: replace what cannot be read instead of raising.
    one_label: refuse videos that have not exactly one label."""

    shards: ShardSet
    view: ClipView
    order: SampleOrder
    seed: int
    skip_bad: bool = False
    one_label: bool = True


def clip_stream(seed: int, epoch: int, sample: int) -> KeyedStream:
    """What a training clip's draws come from: the frames first, then the crop."""
    return KeyedStream(_CLIP_PURPOSE, seed, epoch, sample)


class ClipCutter:
    """Carries out tasks, for one thread. What a clip holds depends on (seed, epoch, sample) alone."""

    def __init__(self, source: ClipSource) -> None:
        cv2.setNumThreads(1)  # the workers are the parallelism
        self._source = source
        self._decoder = FrameDecoder()

    def run(self, task: ClipTask, out: NDArray[np.uint8]) -> ClipDone:
        """Cut the task's clip, or the part of it that is wanted, into `out`, uint8 [frames, size, size, 3].

        With `skip_bad`, a clip of another sample takes the place of one that cannot be read, in training; in evaluation
        it stays black and has no id. Raises OperationFailed without; InputError where a video has not exactly one label.
        """
        self._decoder.seconds = [0.0] * len(READ_STAGES)
        begin = perf_counter()
        bad: list[BadClip] = []
        sample = task.sample
        while True:
            try:
                label, video, frames = self._cut(sample, task, out)
                break
            except OperationFailed as error:
                if not self._source.skip_bad or len(bad) == _ATTEMPTS:
                    raise
                bad.append(self._bad_clip(sample, error))
            if task.epoch == EVALUATION:
                out[...] = 0
                label, video, frames = 0, "", (0,) * (len(out) + (task.first > 0))
                break
            sample = self._source.order.replacement(task.epoch, task.sample, len(bad))
        seconds = self._decoder.seconds
        total = perf_counter() - begin
        spent = (*seconds, max(0.0, total - sum(seconds)))
        return ClipDone(task.batch, task.place, label, video, sample, frames, spent, tuple(bad))

    def _cut(self, sample: int, task: ClipTask, out: NDArray[np.uint8]) -> tuple[int, str, tuple[int, ...]]:
        """Gives the label (-1 where there is none), the video's id and the frames."""
        source = self._source
        begin = perf_counter()
        video = source.shards.open_video(sample)
        labels, video_id = video.labels, video.id
        self._decoder.seconds[0] += perf_counter() - begin
        if source.one_label and len(labels) != 1:
            raise InputError(
                f"{source.shards.path}: video {video_id} has {len(labels)} labels, but this task needs exactly one; "
                + ONE_LABEL_REMEDY
            )
        # Every part of a clip draws all of it anew: the same frames and the same crop, whoever cuts which part.
        stream = None if task.epoch == EVALUATION else clip_stream(source.seed, task.epoch, sample)
        view = source.view
        chosen = view.choose_frames(video.num_frames, stream, task.view)
        box = view.choose_box(video.width, video.height, stream, task.view)
        end = task.first + task.wanted if task.wanted else len(chosen)
        try:
            if source.skip_bad and task.wanted:  # all parts must agree whether the clip is to be replaced
                self._decoder.check(video, np.concatenate([chosen[: task.first], chosen[end:]]))
            taken, chosen = chosen[max(0, task.first - 1) : end], chosen[task.first : end]
            for place, frame in enumerate(self._decoder.frames(video, chosen)):
                box.cut(frame, out[place])
        except OperationFailed as error:
            if not source.shards.drop_local_copy(video, str(error)):
                raise
            return self._cut(sample, task, out)  # now from the set itself
        if stream is not None and view.rand_augment is not None:
            view.rand_augment.apply(view.rand_augment.draw(stream), out)
        label = view.label_of(labels[0], box) if labels else -1
        return label, video_id, tuple(taken.tolist())

    def _bad_clip(self, sample: int, error: OperationFailed) -> BadClip:
        if isinstance(error, DamagedFrame):
            return BadClip(error.shard.name, error.video, error.frame, str(error))
        shard = self._source.shards.shard_of(sample)  # the shard itself cannot be read: no video of it has a name
        return BadClip(shard.name, f"number {sample} of the set", -1, str(error))
