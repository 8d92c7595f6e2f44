"""What the loaders of all ranks have to tell: seconds by stage, and clips that could not be read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hpcvideo.data import ClipLoader
from hpcvideo.data.clip_cutter import STAGES
from hpcvideo.data.loader import bad_videos_sentence
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.process_group import gather, gather_text
from hpcvideo.errors import OperationFailed

_NAMES = (*STAGES, "wait")


@dataclass(frozen=True)
class LoaderReport:
    """seconds: a clip by stage, over all ranks (`wait`: of the step); bad_videos: how many over all ranks since the start;
    new_bad_clips: those since the last report as {shard, video, frame, reason}."""

    seconds: dict[str, float]
    bad_videos: int
    new_bad_clips: list[dict[str, Any]]

    def check(self, allowed: int) -> None:
        """Raise OperationFailed where more videos were bad than data.max_bad_videos allows."""
        if self.bad_videos > allowed and self.new_bad_clips:
            raise OperationFailed(bad_videos_sentence(self.bad_videos, allowed, self.new_bad_clips[-1]["reason"]))


def gather_report(loader: ClipLoader, device: Device) -> LoaderReport:
    """The report since the last call, equal on all ranks. Collective."""
    timing, new = loader.timing(), loader.take_bad_clips()
    own = [timing.clips * timing.seconds.get(name, 0.0) for name in _NAMES]
    rows = gather([float(len(new)), float(timing.clips), *own], device)
    found, clips, *sums = rows.sum(dim=0).tolist()
    seconds = {name: value / max(1.0, clips) for name, value in zip(_NAMES, sums, strict=True)}
    told: list[dict[str, Any]] = []
    if found:
        facts = [{"shard": one.shard, "video": one.video, "frame": one.frame, "reason": one.sentence} for one in new]
        told = [fact for text in gather_text(json.dumps(facts)) for fact in json.loads(text)]
        loader.bad_videos.update((fact["shard"], fact["video"]) for fact in told)  # what other ranks met, too
    return LoaderReport(seconds, len(loader.bad_videos), told)
