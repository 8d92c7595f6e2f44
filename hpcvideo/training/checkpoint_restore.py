"""Find the newest checkpoint that is whole and give it to all ranks.

Rank 0 alone reads and verifies, and sends what it read to the others: 1,536 ranks that each read the 195 MB of a ResNet-50
with its momentum would ask 300 GB of the file system at the start of every job, and two of them might see different folders
for a moment. A checkpoint that is damaged is set aside under another name, never removed, and the one before is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hpcvideo.distributed.device import Device
from hpcvideo.errors import OperationFailed
from hpcvideo.training.checkpoint import (
    PARTS,
    Checkpoint,
    CheckpointFacts,
    DamagedCheckpoint,
    checkpoints,
    clean_up,
    parse_files,
    point_to,
    read_files,
    read_state,
    set_aside,
)

_CHUNK = 64 << 20


def restore_checkpoint(folder: Path, device: Device, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint, on every rank; None where nothing was ever completed. Collective.

    Also removes what a killed writer left. warn: is told on rank 0, in one sentence, of damaged ones, which are set aside.
    Raises OperationFailed on all ranks where none is whole (all stay where they are then), or rank 0 may not read.
    """
    content: dict[str, dict[str, bytes]] = {part: {} for part in PARTS}
    told: dict[str, Any] = {}
    if dist.get_rank() == 0:
        try:
            clean_up(folder)
            found = _newest_whole(folder, warn)
            if found is not None:
                facts, content = found
                sizes = {part: {name: len(data) for name, data in content[part].items()} for part in PARTS}
                told = {"facts": facts, "files": sizes}
        except OperationFailed as error:
            told = {"failed": str(error)}
        except OSError as error:
            told = {"failed": f"{folder}: cannot be read or written: {error.strerror or error}"}
    announced = [told]
    dist.broadcast_object_list(announced)
    told = announced[0]
    if "failed" in told:
        raise OperationFailed(told["failed"])
    if not told:
        return None
    tensors = {part: parse_files(_shared(content[part], told["files"][part], device)) for part in PARTS}
    return Checkpoint(told["facts"], tensors["weights"], tensors["optimizer"], tensors["extra"])


def _newest_whole(
    folder: Path, warn: Callable[[str], None]
) -> tuple[CheckpointFacts, dict[str, dict[str, bytes]]] | None:
    """(facts, by part the bytes of its files), read and verified. What is damaged and newer is set aside."""
    damaged: list[tuple[Path, str]] = []
    for path in checkpoints(folder):
        try:
            facts, listed = read_state(path)
            content = {part: read_files(path, listed[part]) for part in PARTS}
        except DamagedCheckpoint as error:
            damaged.append((path, str(error)))
            continue
        for other, reason in damaged:
            aside = set_aside(other)
            where = f"it is set aside as {aside.name}" if aside else "it is gone"
            warn(f"{other} is damaged ({reason}); {where}, and the run goes on from {path.name}")
        if damaged or (folder / "latest").read_bytes() != path.name.encode():
            point_to(path)
        return facts, content
    if not damaged:
        return None
    reasons = "; ".join(f"{path.name}: {reason}" for path, reason in damaged)
    raise OperationFailed(
        f"{folder}: no checkpoint is whole ({reasons}); put a whole one back, or start anew with another --run"
    )


def _shared(content: dict[str, bytes], sizes: dict[str, int], device: Device) -> Iterator[tuple[str, bytes]]:
    """Rank 0's files on every rank, one after another, so that a rank holds one of them at a time. Collective."""
    alone, first = dist.get_world_size() == 1, dist.get_rank() == 0
    for name, size in sizes.items():
        if alone:
            yield name, content.pop(name)
            continue
        received = bytearray(content.pop(name) if first else size)
        whole = torch.frombuffer(received, dtype=torch.uint8)
        for chunk in whole.split(_CHUNK):
            sent = chunk.to(device.torch_device)
            dist.broadcast(sent, 0)
            if not first:
                chunk.copy_(sent)
        yield name, bytes(received)
