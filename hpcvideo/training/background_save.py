"""One checkpoint on its way to disk, written by several ranks beside the training.

Ranks must agree when all files are there, and on whether one failed. They do so at step boundaries, in the training's own
thread: each says in an all-reduce of one number, started at one boundary and read at the next, whether it still works. When
nobody does, what they wrote (digests, or why they could not) is gathered, and rank 0 completes the checkpoint, again in a
thread. So no thread ever calls a collective, which would get in between those of the training; nobody looks for the files of
another node, which a network file system may show late; a rank that cannot write is heard even where its disk takes no word
more; and the answers, being the same on all ranks, take all of them through the same steps.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hpcvideo.distributed.device import Device
from hpcvideo.distributed.process_group import gather_text
from hpcvideo.training.checkpoint import CheckpointFacts, complete_checkpoint, unfinished_folder
from hpcvideo.training.checkpoint_buffer import HostBuffer, WrittenFile

_WAIT_SECONDS = 0.02


@dataclass(frozen=True)
class SaveOutcome:
    """How it ended, alike on all ranks. failure: None where the checkpoint is whole, else which rank failed and why.

    size: bytes of its files. write_seconds: what the slowest rank took to write, and rank 0 to complete it.
    """

    failure: str | None
    size: int
    write_seconds: float


class BackgroundSave:
    """Writes `buffer` and completes the checkpoint. Every rank makes one, whether it has files to write or not."""

    def __init__(self, folder: Path, facts: CheckpointFacts, keep: int, buffer: HostBuffer, device: Device) -> None:
        self._folder, self._facts, self._keep, self._buffer, self._device = folder, facts, keep, buffer, device
        self._asked: tuple[Any, torch.Tensor] | None = None
        self._written: list[WrittenFile] | None = None  # by all ranks, once all have written
        self._slowest = 0.0
        self._start(self._write)

    def poll(self) -> SaveOutcome | None:
        """Take a look, without waiting, at a step boundary; None while it is under way. Collective."""
        if self._asked is not None:
            handle, working = self._asked
            handle.wait()
            self._asked = None
            if working.item() == 0:
                return self._advance()
        working = torch.tensor([float(self._thread.is_alive())], device=self._device.torch_device)
        self._asked = dist.all_reduce(working, async_op=True), working
        return None

    def wait(self, alive: Callable[[], None]) -> SaveOutcome:
        """Wait for the end, and call `alive` now and then. Collective."""
        while (outcome := self.poll()) is None:
            alive()
            time.sleep(_WAIT_SECONDS)
        return outcome

    def _start(self, work: Callable[[], dict[str, Any]]) -> None:
        self._said: dict[str, Any] = {}
        self._defect: Exception | None = None
        # A daemon: where training fails, the process must not stay for a file that nobody will complete.
        self._thread = threading.Thread(target=self._run, args=(work,), name="checkpoint", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], dict[str, Any]]) -> None:
        began = time.monotonic()
        try:
            self._said = work()
        except OSError as error:
            self._said = {"failure": error.strerror or str(error)}
        except Exception as error:
            self._defect = error
        self._said["seconds"] = time.monotonic() - began

    def _advance(self) -> SaveOutcome | None:
        """All ranks have done their part of the present turn: tell each other, and go on to the next."""
        if self._defect is not None:
            raise self._defect
        told = [json.loads(text) for text in gather_text(json.dumps(self._said))]
        self._slowest += max(said["seconds"] for said in told)
        for rank, said in enumerate(told):
            if "failure" in said:
                if dist.get_rank() == 0:
                    shutil.rmtree(unfinished_folder(self._folder, self._facts.step), ignore_errors=True)
                return SaveOutcome(f"rank {rank}: {said['failure']}", 0, self._slowest)
        if self._written is not None:
            return SaveOutcome(None, sum(file.size for file in self._written), self._slowest)
        self._written = [WrittenFile(**file) for said in told for file in said["files"]]
        self._start(self._complete if dist.get_rank() == 0 else dict)
        return None

    def _write(self) -> dict[str, Any]:
        target = unfinished_folder(self._folder, self._facts.step)
        target.mkdir(parents=True, exist_ok=True)
        return {"files": [asdict(file) for file in self._buffer.write(target)]}

    def _complete(self) -> dict[str, Any]:
        assert self._written is not None
        complete_checkpoint(self._folder, self._facts, self._written, self._keep)
        return {}
