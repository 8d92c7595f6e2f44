"""PyAV and TorchCodec reading 8 frames a clip from the video files themselves."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from clip_work import FRAMES, SIZE, crop, cut, wanted_frames
from serve import config, serve, timed
from torch.utils.data import DataLoader, IterableDataset

Decode = Callable[[str, Sequence[int]], Iterator[np.ndarray]]
"""(file, ascending frame numbers) -> those frames, uint8 [height, width, 3] RGB."""


def pyav(path: str, frames: Sequence[int]) -> Iterator[np.ndarray]:
    """Decode from the start to the last wanted frame and convert only the wanted ones.

    These files have 2 to 6 key frames: a seek for each wanted frame decodes as much or more.
    """
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        wanted = iter(frames)
        following = next(wanted)
        for number, frame in enumerate(container.decode(stream)):
            if number == following:
                yield frame.to_ndarray(format="rgb24", threads=1)
                following = next(wanted, -1)
                if following < 0:
                    return


def torchcodec(seek_mode: str) -> Decode:
    """get_frames_at with one FFmpeg thread; "approximate" does not scan the file first."""
    from torchcodec.decoders import VideoDecoder

    def decode(path: str, frames: Sequence[int]) -> Iterator[np.ndarray]:
        decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode=seek_mode)
        yield from decoder.get_frames_at(list(frames)).data.numpy()

    return decode


class VideoClips(IterableDataset):  # type: ignore[type-arg]
    """Endless clips of random videos, uint8 [FRAMES, SIZE, SIZE, 3]."""

    def __init__(self, videos: Sequence[tuple[str, int]], decode: Decode) -> None:
        self._videos, self._decode = videos, decode

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = torch.utils.data.get_worker_info()
        random.seed(worker.seed if worker else 0)
        scratch = np.empty((SIZE, SIZE, 3), np.uint8)
        while True:
            path, frames = random.choice(self._videos)
            clip, box = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8), None
            for frame, place in zip(self._decode(path, wanted_frames(frames)), clip, strict=True):
                box = box or crop(frame.shape[1], frame.shape[0])
                cut(frame, box, place, scratch)
            yield torch.from_numpy(clip)


def main() -> None:
    facts: dict[str, Any] = config()
    decode = pyav if facts["mode"] == "pyav" else torchcodec(facts["mode"].partition(" ")[2])
    clips = VideoClips([(path, frames) for path, frames in facts["videos"]], decode)
    loader = DataLoader(clips, batch_size=facts["batch"], num_workers=facts["workers"])
    serve(timed((len(made) for made in loader), ahead=2 * facts["workers"]))


if __name__ == "__main__":
    main()
