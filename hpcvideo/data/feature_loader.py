"""A loader whose clips are ready features: what a detector trains on where the encoder stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpcvideo.data.clip_cutter import clip_stream
from hpcvideo.data.clip_tasks import EVALUATION
from hpcvideo.data.feature_file import FeatureFile, resized
from hpcvideo.data.loader import Batch, ClipLoader
from hpcvideo.distributed.keyed_random import KeyedStream


class FeatureLoader(ClipLoader):
    """Stands in for ClipLoader: `clips` are float32 [batch, view.frames, channels], a video's features brought to as many
    bins as a clip has frames (see `resized`), the same in every epoch; all else of a batch is as for frames. Of a view with
    windows of snippets, a snippet a bin, the features are those of the window that frames would be of.

    frame_numbers are the stored frames in the middle of each bin. Raises InputError, with the first batch, where the file
    has none of a video.
    """

    def __init__(self, features: Path, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "workers": 0})
        self._features = FeatureFile(features)

    def _run(self, plans: Iterator[Any], size: int, training: bool) -> Iterator[Batch]:
        for plan in plans:
            yield self._batch(plan)

    def _batch(self, plan: Any) -> Batch:
        bins = self.view.frames
        videos = [self.shards.video(sample) for sample in plan.samples.tolist()]
        clips, numbers = [], []
        for video, sample, epoch, at in zip(
            videos, plan.samples.tolist(), plan.epochs.tolist(), plan.views.tolist(), strict=True
        ):
            first, span = self.view.choose_span(video.num_frames, self._draws(epoch, sample), at)
            ends = first / video.num_frames, (first + span) / video.num_frames
            clips.append(resized(self._features.read(video.id), bins, *ends))
            numbers.append(self.view.choose_frames(video.num_frames, self._draws(epoch, sample), at))
        labels = [video.labels[0] if video.labels else -1 for video in videos]
        batch = Batch(
            clips=torch.from_numpy(np.stack(clips)),
            labels=torch.tensor(labels),
            weights=torch.from_numpy(plan.weights),
            ids=[video.id if weight else "" for video, weight in zip(videos, plan.weights, strict=True)],
            views=torch.from_numpy(plan.views),
            samples=torch.from_numpy(plan.samples),
            epochs=torch.from_numpy(plan.epochs),
            frame_numbers=torch.from_numpy(np.stack(numbers)),
        )
        self._clips += int((plan.epochs != EVALUATION).sum())
        if self._targets is not None:
            batch.update(self._targets(batch["samples"], batch["frame_numbers"]))  # type: ignore[typeddict-item]
        return batch

    def _draws(self, epoch: int, sample: int) -> KeyedStream | None:
        """The stream of a clip's draws from its beginning: of its window, and again of the frames in it."""
        drawn = self.view.snippets is not None and epoch != EVALUATION
        return clip_stream(self.seed, epoch, sample) if drawn else None
