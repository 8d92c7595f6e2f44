"""One checkpoint on its way to disk, written by several ranks beside the training.

Ranks must agree when all files are there, and on whether one failed. They do so at step boundaries, in the training's own
thread: each says in an all-reduce of two numbers, started at one boundary and read at the next, whether it still works, and
whether its bytes grow. When nobody works any more, what they wrote (digests, or why they could not) is gathered, and rank 0
completes the checkpoint, again in a thread. So no thread ever calls a collective, which would get in between those of the
training; nobody looks for the files of another node, which a network file system may show late; a rank that cannot write is
heard even where its disk takes no word more; and the answers, being the same on all ranks, take all of them through the same
steps.
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

import torch.distributed as dist

from hpcvideo.distributed.process_group import gather_text
from hpcvideo.distributed.step_exchange import StepExchange
from hpcvideo.training.checkpoint import CheckpointFacts, complete_checkpoint, unfinished_folder
from hpcvideo.training.checkpoint_buffer import HostBuffer, WrittenFile

NUMBERS = 2
"""Of a StepExchange for a BackgroundSave: whether a rank still works, and whether its bytes grow."""

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
    """Writes `buffer` and completes the checkpoint. Every rank makes one, whether it has files to write or not.

    exchange: of NUMBERS, used for nothing else meanwhile. It costs no GPU a wait, since it is not the engine's group.
    permit: called on rank 0 before the checkpoint takes its place; it raises where another job has taken the run over.
    """

    def __init__(
        self, folder: Path, facts: CheckpointFacts, keep: int, buffer: HostBuffer, exchange: StepExchange,
        permit: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._permit = permit
        self._folder, self._facts, self._keep, self._buffer, self._exchange = folder, facts, keep, buffer, exchange
        self._told = buffer.bytes_written
        self._grows = False  # of any rank
        self._written: list[WrittenFile] | None = None  # by all ranks, once all have written
        self._slowest = 0.0
        self._start(self._write)

    @property
    def at_work(self) -> bool:
        """Whether this rank still has something to do itself."""
        return self._thread.is_alive()

    def poll(self) -> SaveOutcome | None:
        """Take a look, without waiting, at a step boundary; None while it is under way. Collective."""
        arrived = self._exchange.finish()
        if self._working(arrived) != 0:
            before, self._told = self._told, self._buffer.bytes_written
            # A rank alone has its answer at once.
            arrived = self._exchange.tell(0, [float(self.at_work), float(self._told > before)])
        return self._advance() if self._working(arrived) == 0 else None

    def wait(self, alive: Callable[[], None]) -> SaveOutcome:
        """Wait for the end. `alive` is called as long as bytes are written on any rank, and no longer where a disk does not
        answer. Collective."""
        while (outcome := self.poll()) is None:
            if self._grows:
                alive()
            time.sleep(_WAIT_SECONDS)
        return outcome

    def _working(self, arrived: list[tuple[int, list[float]]]) -> float | None:
        """How many ranks work, None where no answer has arrived; takes note whether bytes grow."""
        if not arrived:
            return None
        ((_, (working, growing)),) = arrived
        self._grows = growing > 0
        return working

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
        self._grows = True
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
        self._permit()
        complete_checkpoint(self._folder, self._facts, self._written, self._keep)
        return {}
