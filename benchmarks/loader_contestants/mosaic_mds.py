"""mosaicml-streaming (MDS) with the same JPEG frames: its writer, its documented path, and that tuned."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import without_torchvision  # noqa: F401  (before streaming)
from clip_work import FRAMES, FastClips, open_jpegs, pack, pillow_clip, shared_batch, unpack, wanted_frames
from serve import config, serve, timed
from stored_frames import read_index
from streaming import MDSWriter, StreamingDataset
from torch.utils.data import DataLoader

_ENDLESS = 200_000  # samples of an "epoch": videos are drawn again and again, no epoch ends while the clock runs


class WholeVideos(StreamingDataset):
    """Documented: a sample is a video in the type for lists of JPEGs, which opens each with Pillow; 8 are decoded."""

    def __getitem__(self, at: Any) -> tuple[torch.Tensor, int]:
        sample = super().__getitem__(at)
        images = sample["frames"]
        return pillow_clip([images[frame] for frame in wanted_frames(len(images))]), sample["label"]


class PackedVideos(StreamingDataset):
    """Documented as well: a sample is a video as plain bytes, cut by the user; only the 8 are opened with Pillow."""

    def __getitem__(self, at: Any) -> tuple[torch.Tensor, int]:
        sample = super().__getitem__(at)
        jpegs = unpack(sample["frames"])
        return pillow_clip(open_jpegs([bytes(jpegs[frame]) for frame in wanted_frames(len(jpegs))])), sample["label"]


class WantedFrames(StreamingDataset):
    """Tuned: a sample is the 8 wanted frames alone; workers make whole batches in shared memory with simplejpeg."""

    def __init__(self, clips: int, **options: Any) -> None:
        super().__init__(batch_size=clips, **options)
        self._clips = clips

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        work, samples = FastClips(), super().__iter__()
        while True:
            batch, labels = shared_batch(self._clips), []
            for place in batch.numpy():
                sample = next(samples)
                work.fill(unpack(sample["frames"]), sample["width"], sample["height"], place)
                labels.append(sample["label"])
            yield batch, torch.tensor(labels)


def write(facts: dict[str, Any]) -> None:
    """The three data sets from the shard set's frames."""
    packed = {"frames": "bytes", "label": "int"}
    with (
        MDSWriter(out=facts["whole"], columns={"frames": "jpeg_array", "label": "int"}, size_limit="64mb") as lists,
        MDSWriter(out=facts["packed"], columns=packed, size_limit="64mb") as videos,
        MDSWriter(out=facts["wanted"], columns={**packed, "width": "int", "height": "int"}, size_limit="64mb") as clips,
    ):
        for video in read_index(facts["index"]):
            jpegs = video.jpegs(range(len(video.offsets)))
            lists.write({"frames": jpegs, "label": video.label})
            videos.write({"frames": pack(jpegs), "label": video.label})
            clip = {"frames": pack(video.centre_frames(FRAMES)), "label": video.label}
            clips.write({**clip, "width": video.width, "height": video.height})


def main() -> None:
    facts = config()
    if facts["mode"] == "write":
        write(facts)
        print(json.dumps({"written": True}))
        return
    random.seed(0)
    np.random.seed(0)
    options = {"shuffle": True, "epoch_size": _ENDLESS}
    if facts["mode"] != "tuned":
        made, folder = (PackedVideos, "packed") if facts["mode"].endswith("bytes") else (WholeVideos, "whole")
        videos = made(local=facts[folder], batch_size=facts["batch"], **options)
        loader = DataLoader(videos, batch_size=facts["batch"], num_workers=facts["workers"])
    else:
        clips = WantedFrames(facts["batch"], local=facts["wanted"], **options)
        loader = DataLoader(clips, batch_size=None, num_workers=facts["workers"])
    serve(timed((len(clips) for clips, _ in loader), ahead=2 * facts["workers"]))


if __name__ == "__main__":
    main()
