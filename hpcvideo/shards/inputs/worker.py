"""A process that decodes videos for a builder: `python -m hpcvideo.shards.inputs.worker DESCRIPTOR` of a socket.

What a broken video does to a decoder, crash, hang or leak, it does to this process. It ends when its builder does.
"""

from __future__ import annotations

import ctypes
import pickle
import signal
import socket
import sys

import cv2

from hpcvideo.shards.inputs.decode import BrokenVideo, encode_video
from hpcvideo.shards.inputs.worker_messages import (
    BROKEN,
    DONE,
    FRAMES,
    JOB,
    READY,
    pack_frames,
    receive_message,
    send_message,
)
from hpcvideo.shards.records import StoredFrame

_CHUNK_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(descriptor: int) -> None:
    """Serve jobs, pickled (Source, Encoding), until the other end closes."""
    if sys.platform == "linux":  # a decoder that hangs would not notice that the socket closed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    cv2.setNumThreads(1)
    try:
        with socket.socket(fileno=descriptor) as builder:
            send_message(builder, READY)
            while True:
                kind, job = receive_message(builder)
                if kind != JOB:
                    raise ValueError(f"message of kind {kind!r} instead of a job")
                _serve(builder, job)
    except (EOFError, ConnectionError):
        return  # the builder is gone


def _serve(builder: socket.socket, job: bytearray) -> None:
    chunk: list[StoredFrame] = []
    size = 0

    def store(frame: StoredFrame) -> None:
        nonlocal size
        chunk.append(frame)
        size += len(frame.jpeg)
        if size >= _CHUNK_BYTES:
            send_message(builder, FRAMES, pack_frames(chunk))
            chunk.clear()
            size = 0

    source, encoding = pickle.loads(job)
    try:
        facts = encode_video(source, encoding, store)
    except BrokenVideo as broken:
        send_message(builder, BROKEN, str(broken).encode())
    except ConnectionError:
        raise
    except Exception as error:  # whatever it is, it costs this video only
        send_message(builder, BROKEN, f"decoding failed: {type(error).__name__}: {error}".encode(errors="replace"))
    else:
        if chunk:
            send_message(builder, FRAMES, pack_frames(chunk))
        send_message(builder, DONE, pickle.dumps(facts))


if __name__ == "__main__":
    main(int(sys.argv[1]))
