"""What one rank writes of a checkpoint: copied to memory of the host while training waits, written while it goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpcvideo.runs.durable import flush_folder
from hpcvideo.training.checkpoint_layout import PlannedFile

_CHUNK = 8 << 20
_FLUSH = 16 * _CHUNK  # so that bytes_written tells of the disk, and no flush at the end takes long
_ALIGNED = 64
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class WrittenFile:
    """A file of a checkpoint as it lies on disk."""

    part: str
    name: str
    sha256: str
    size: int


class HostBuffer:
    """One stretch of host memory for all files that this rank writes, each as it will lie on disk (safetensors).

    It is kept from one checkpoint to the next, pinned where the tensors are on a GPU: as many bytes as the rank writes, no
    more. Whoever calls `capture` again must have written what was captured before.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._files: list[tuple[PlannedFile, int, int]] = []
        self.bytes_written = 0
        """By all calls of `write`; grows while one is at work."""

    @torch.no_grad()
    def capture(self, files: Sequence[PlannedFile], state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy the tensors of `files` out of `state` (part -> name -> tensor on any device). All are copied on return."""
        headers = [_header({name: state[file.part][name] for name in file.tensors}) for file in files]
        starts, end = [], 0
        for file, (header, _) in zip(files, headers, strict=True):
            starts.append(end)
            end += -(-(len(header) + file.size) // _ALIGNED) * _ALIGNED
        devices = {tensor.device for part in state.values() for tensor in part.values() if tensor.is_cuda}
        if self._memory.numel() != end:
            self._memory = torch.empty(end, dtype=torch.uint8, pin_memory=bool(devices))
        self._files = []
        sources, targets = [], []
        for file, start, (header, offsets) in zip(files, starts, headers, strict=True):
            begin = start + len(header)
            self._memory[start:begin] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
            for name, offset in offsets.items():
                tensor = state[file.part][name]
                place = self._memory[begin + offset :][: tensor.nbytes]
                sources.append(tensor.detach())
                targets.append(place.view(tensor.dtype).view(tensor.shape))
            self._files.append((file, start, begin + file.size))
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source, non_blocking=True)
        for device in devices:
            torch.cuda.synchronize(device)

    def write(self, folder: Path) -> list[WrittenFile]:
        """Write what was captured and flush it to disk. OSErrors pass through. May run beside the training in a thread: it
        spends its time in hashing and in the operating system, which both let go of Python's lock."""
        memory = self._memory.numpy().data
        return [
            WrittenFile(file.part, file.name, _write(folder / file.name, memory[start:end], self._count), end - start)
            for file, start, end in self._files
        ]

    def _count(self, size: int) -> None:
        self.bytes_written += size


def _header(tensors: Mapping[str, Tensor]) -> tuple[bytes, dict[str, int]]:
    """A safetensors header and, by name, where each tensor begins behind it; the widest types first, so all lie aligned."""
    entries: dict[str, Any] = {}
    offsets, end = {}, 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        tensor = tensors[name]
        offsets[name], begin, end = end, end, end + tensor.nbytes
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offsets


def _write(path: Path, content: memoryview, count: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for start in range(0, len(content), _CHUNK):
            chunk = content[start : start + _CHUNK]
            digest.update(chunk)
            if start and start % _FLUSH == 0:
                os.fdatasync(descriptor)
            while chunk:
                size = os.write(descriptor, chunk)
                count(size)
                chunk = chunk[size:]
        os.fsync(descriptor)
    except OSError:
        # Of a full disk the log of the run needs a little as well, and it cannot wait until all ranks have told each other.
        with suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(descriptor)
    flush_folder(path.parent)
    return digest.hexdigest()
