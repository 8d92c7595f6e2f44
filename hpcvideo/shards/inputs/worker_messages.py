"""What a decode worker and the process that started it say to each other over a socket.

A message is a kind (one byte), a length (8 bytes, little endian) and that many bytes. A job goes to the worker; READY, once,
and for each job any number of FRAMES and then DONE or BROKEN come back.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hpcvideo.shards.records import StoredFrame

READY, JOB, FRAMES, DONE, BROKEN = (bytes([code]) for code in b"RJFDB")

_HEADER = struct.Struct("<cQ")
_ROW: np.dtype[Any] = np.dtype([("length", "<u4"), ("source_frame", "<u4"), ("seconds", "<f8")])


def send_message(to: socket.socket, kind: bytes, content: bytes = b"") -> None:
    """Send one message; OSError where nobody is there to take it."""
    to.sendall(_HEADER.pack(kind, len(content)))
    to.sendall(content)


def receive_message(of: socket.socket, deadline: float | None = None) -> tuple[bytes, bytearray]:
    """(kind, content) of the next message. deadline: of time.monotonic().

    Raises EOFError where the other end is closed, TimeoutError where the whole message is not there in time.
    """
    header = _receive(of, _HEADER.size, deadline)
    kind, length = _HEADER.unpack(header)
    return kind, _receive(of, length, deadline)


def _receive(of: socket.socket, size: int, deadline: float | None) -> bytearray:
    content = bytearray(size)
    view = memoryview(content)
    while len(view):
        if deadline is not None:
            of.settimeout(max(1e-3, deadline - time.monotonic()))
        try:
            count = of.recv_into(view)
        except ConnectionError:
            count = 0
        if not count:
            raise EOFError
        view = view[count:]
    return content


def pack_frames(frames: Sequence[StoredFrame]) -> bytes:
    """The content of a FRAMES message: their number, a table, their JPEGs back to back."""
    rows = np.array([(len(frame.jpeg), frame.source_frame, frame.seconds) for frame in frames], _ROW)
    return b"".join([struct.pack("<I", len(frames)), rows.tobytes(), *(frame.jpeg for frame in frames)])


def unpack_frames(content: bytes | bytearray) -> Iterator[StoredFrame]:
    """The frames of a FRAMES message, one by one."""
    (count,) = struct.unpack_from("<I", content)
    offset = 4 + count * _ROW.itemsize
    view = memoryview(content)
    for length, source_frame, seconds in np.frombuffer(content, _ROW, count, 4).tolist():
        yield StoredFrame(bytes(view[offset : offset + length]), source_frame, seconds)
        offset += length
