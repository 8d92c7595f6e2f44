"""Conversion of video files to JPEG frames: the shard builder, and bare PyAV decode + JPEG encode."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import simplejpeg

from hpcvideo.shards.build import build_shards
from hpcvideo.shards.build_options import BuildOptions


def build(facts: dict[str, Any]) -> tuple[float, bool]:
    """(seconds, whether this rank reports) of build_shards with one decode worker a rank, from its plan to its manifest."""
    options = BuildOptions(videos_per_shard=facts["videos_per_shard"], workers=1)
    begin = time.perf_counter()
    result = build_shards(Path(facts["source"]), Path(facts["out"]), Path(facts["list"]), options=options)
    return time.perf_counter() - begin, result.rank == 0


def bare(facts: dict[str, Any]) -> float:
    """Seconds of decode with one thread, the builder's resize, and encode at quality 85, 4:2:0; nothing is kept.

    "rgb" encodes RGB arrays. "yuv" encodes the three planes of 4:2:0 video, stretched by table lookup to the full range
    that JPEG wants: the least work that gives a right picture where the video's matrix is BT.601.
    """
    cv2.setNumThreads(1)
    encode = _from_rgb if facts["planes"] == "rgb" else _from_yuv
    begin = time.perf_counter()
    for path in facts["files"]:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                encode(frame, max(1.0, min(frame.width, frame.height) / facts["short_side"]))
    return time.perf_counter() - begin


def _from_rgb(frame: av.VideoFrame, shrink: float) -> bytes:
    image = _shrunk(frame.to_ndarray(format="rgb24", threads=1), frame.width / shrink, frame.height / shrink)
    jpeg: bytes = simplejpeg.encode_jpeg(image, 85, colorspace="RGB", colorsubsampling="420")
    return jpeg


def _from_yuv(frame: av.VideoFrame, shrink: float) -> bytes:
    if frame.format.name != "yuv420p":
        return _from_rgb(frame, shrink)
    planes = []
    for plane, part, table in zip(frame.planes, (1, 2, 2), _FULL_RANGE, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        planes.append(cv2.LUT(_shrunk(rows, frame.width / shrink / part, frame.height / shrink / part), table))
    jpeg: bytes = simplejpeg.encode_jpeg_yuv_planes(*planes, quality=85)
    return jpeg


def _shrunk(pixels: np.ndarray, width: float, height: float) -> np.ndarray:
    size = (math.floor(width + 0.5), math.floor(height + 0.5))
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


_LEVELS = np.arange(256.0)
_LUMA = np.clip(np.round((_LEVELS - 16) * 255 / 219), 0, 255).astype(np.uint8)
_CHROMA = np.clip(np.round((_LEVELS - 128) * 255 / 224 + 128), 0, 255).astype(np.uint8)
_FULL_RANGE = (_LUMA, _CHROMA, _CHROMA)


def main() -> None:
    facts = json.loads(sys.argv[1])
    os.sched_setaffinity(0, facts["cores"])
    if facts["mode"] == "build":
        seconds, reports = build(facts)
    else:
        seconds, reports = bare(facts), True
    if reports:
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
