"""WebDataset with the same JPEG frames: its writer, its documented path, and that tuned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import webdataset
from clip_work import FRAMES, FastClips, open_jpegs, pack, pillow_clip, shared_batch, unpack, wanted_frames
from serve import config, serve, timed
from stored_frames import read_index
from torch.utils.data import DataLoader

_VIDEOS_A_SHARD = 4  # some shards for every worker; the size of a tar does not matter to its reader


def whole_video(sample: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """Documented: the files of one key are a sample, a video all its frames; 8 are decoded, by Pillow."""
    frames = sorted(name for name in sample if name.endswith("jpg"))
    chosen = [sample[frames[frame]] for frame in wanted_frames(len(frames))]
    return pillow_clip(open_jpegs(chosen)), int(sample["cls"])


class Batches:
    """Tuned: a sample is one file with the 8 wanted frames; workers make whole batches in shared memory with simplejpeg."""

    def __init__(self, clips: int) -> None:
        self._clips = clips

    def __call__(self, samples: Iterator[dict[str, Any]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        work = FastClips()
        while True:
            batch, labels = shared_batch(self._clips), []
            for place in batch.numpy():
                sample = next(samples)
                width, height, label = map(int, sample["txt"].split())
                work.fill(unpack(sample["bin"]), width, height, place)
                labels.append(label)
            yield batch, torch.tensor(labels)


def write(facts: dict[str, Any]) -> None:
    """Both data sets from the shard set's frames."""
    patterns = []
    for name in ("whole", "wanted"):
        Path(facts[name]).mkdir(parents=True)
        patterns.append(str(Path(facts[name]) / "%05d.tar"))
    with (
        webdataset.ShardWriter(patterns[0], maxcount=_VIDEOS_A_SHARD, verbose=0) as videos,
        webdataset.ShardWriter(patterns[1], maxcount=_VIDEOS_A_SHARD, verbose=0) as clips,
    ):
        for number, video in enumerate(read_index(facts["index"])):
            key = f"{number:06d}"
            frames = {f"{i:04d}.jpg": jpeg for i, jpeg in enumerate(video.jpegs(range(len(video.offsets))))}
            videos.write({"__key__": key, "cls": video.label, **frames})
            text = f"{video.width} {video.height} {video.label}"
            clips.write({"__key__": key, "txt": text, "bin": pack(video.centre_frames(FRAMES))})


def main() -> None:
    facts = config()
    if facts["mode"] == "write":
        write(facts)
        print(json.dumps({"written": True}))
        return
    documented = facts["mode"] != "tuned"
    tars = sorted(str(path) for path in Path(facts["whole" if documented else "wanted"]).glob("*.tar"))
    samples = webdataset.WebDataset(tars, resampled=True)
    if documented:
        clips = samples.shuffle(8).map(whole_video)
        loader = DataLoader(clips, batch_size=facts["batch"], num_workers=facts["workers"])
    else:
        batches = samples.shuffle(8).compose(Batches(facts["batch"]))
        loader = DataLoader(batches, batch_size=None, num_workers=facts["workers"])
    serve(timed((len(clips) for clips, _ in loader), ahead=2 * facts["workers"]))


if __name__ == "__main__":
    main()
