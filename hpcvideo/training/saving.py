"""A run's checkpoints as the trainer sees them: go on from the newest whole one, and save beside the training."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

from hpcvideo.config import RunConfig
from hpcvideo.data.feature_file import FeatureFile
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment, node_mtbf_hours
from hpcvideo.distributed.process_group import TIMEOUT, barrier, gather
from hpcvideo.distributed.step_exchange import StepExchange
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.runs import RunDirectory
from hpcvideo.training.background_save import NUMBERS, BackgroundSave, SaveOutcome
from hpcvideo.training.build import RunParts
from hpcvideo.training.checkpoint import PARTS, Checkpoint, CheckpointFacts
from hpcvideo.training.checkpoint_buffer import HostBuffer
from hpcvideo.training.checkpoint_interval import CheckpointInterval
from hpcvideo.training.checkpoint_layout import plan_files
from hpcvideo.training.checkpoint_restore import restore_checkpoint
from hpcvideo.training.recipe import RunPlan


class Saver:
    """Saves and loads the method's state. All calls but `due` and `facts` are collective.

    Memory: each rank keeps a copy of what it writes itself, in a host buffer that is used again and again; while a
    checkpoint is on its way, the operating system may hold the same bytes once more in its page cache.

    A checkpoint that cannot be written (a full disk) is told as the event `warning`. The run goes on while an older one is
    whole; `finish` raises where the last one failed.

    saved_step: the step of the last checkpoint that was begun or loaded, None before and after one that failed. notes: what
    the trainer wants to find again when it resumes (JSON types): written with every checkpoint, set by `resume`. log: writes
    an event. alive: called while it waits for a disk that takes bytes. waiting: as Watchdog.waiting. timeout:
    how long the others may be late at a step. permit: as of BackgroundSave.
    """

    def __init__(
        self, config: RunConfig, plan: RunPlan, place: ProcessEnvironment, device: Device, parts: RunParts,
        directory: RunDirectory, log: Callable[..., None], alive: Callable[[], None] = lambda: None,
        waiting: Callable[..., AbstractContextManager[object]] = nullcontext, timeout: timedelta = TIMEOUT,
        permit: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._config, self._plan, self._place, self._device, self._parts = config, plan, place, device, parts
        self._directory, self._log, self._alive, self._waiting = directory, log, alive, waiting
        self._interval = CheckpointInterval(config.checkpoint, plan, place.nodes, node_mtbf_hours())
        self._buffer, self._exchange, self._permit = HostBuffer(), StepExchange(NUMBERS, timeout), permit
        self._features = None if config.data.features is None else FeatureFile(config.data.features).identity()
        self._under_way: tuple[BackgroundSave, int, float] | None = None
        self._failure: str | None = None
        self._has_whole = False
        self.saved_step: int | None = None
        self.notes: dict[str, Any] = {}

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is under way beside the training."""
        return self._under_way is not None

    def facts(self) -> dict[str, Any]:
        """What the run's start event tells of checkpoints."""
        return {"checkpoints": self._interval.describe()}

    def due(self, step: int) -> bool:
        """Whether the interval says to save after `step` updates; alike on all ranks."""
        return self._interval.due(step)

    def at_step(self, step: int) -> None:
        """Take note of a checkpoint that is being written beside the training. To be called after every step.

        Raises OperationFailed where it could not be written and none before it is whole.
        """
        self._interval.note(step)
        if self._under_way is not None:
            with self._waiting():
                outcome = self._under_way[0].poll()
            if outcome is not None:
                self._settle(outcome, step)

    def save(self, step: int) -> None:
        """Begin to save the state after `step` updates, unless that is done; training may go on when this returns.

        BatchNorm's statistics must be the same on all ranks. Waits first where the checkpoint before is not whole yet.
        """
        if self.saved_step == step:
            return
        began = time.perf_counter()
        self.settle(step)
        method = self._parts.method
        state = {"weights": method.weights(), "optimizer": method.optimizer_state(), "extra": method.extra_state()}
        holders = {part: method.holders(part) for part in PARTS}
        sizes = {
            part: {name: tensor.nbytes for name, tensor in state[part].items()}
            for part in PARTS
            if self._place.rank in holders[part].ranks
        }
        files = plan_files(sizes, holders)
        self._buffer.capture([file for file in files if file.writer == self._place.rank], state)
        facts = CheckpointFacts(step, self._config.seed, self._config.digest(), self._data(), dict(self.notes))
        keep = self._config.checkpoint.keep
        self._interval.begin(step)
        # All wait here: else the others would wait in the next step, and book this as communication.
        with self._waiting():
            barrier(self._device)
        save = BackgroundSave(self._directory.checkpoints, facts, keep, self._buffer, self._exchange, self._permit)
        self.saved_step = step
        self._under_way = save, step, time.perf_counter() - began

    def settle(self, step: int) -> None:
        """Wait, after `step` updates, until what was begun is whole on disk or has failed, which is told.

        Raises OperationFailed on all ranks where it has and none before it is whole.
        """
        if self._under_way is not None:
            save = self._under_way[0]
            with self._waiting(lambda: not save.at_work):
                outcome = save.wait(self._alive)
            self._settle(outcome, step)

    def finish(self) -> None:
        """Wait until what was begun is whole on disk. Raises OperationFailed on all ranks where it could not be written."""
        self.settle(self.saved_step or 0)
        if self._failure is not None:
            raise OperationFailed(self._failure)

    def resume(self) -> int | None:
        """Load the newest whole checkpoint; gives its step, or None where there is none. Also in mid-run, to go back.

        Raises OperationFailed where there are some but none is whole, InputError where it is another run's.
        """
        self.settle(self.saved_step or 0)
        folder = self._directory.checkpoints
        checkpoint = restore_checkpoint(folder, self._device, lambda sentence: self._log("warning", sentence=sentence))
        if checkpoint is None:
            self._interval.start(0)
            return None
        self._check(checkpoint)
        self._parts.method.load(checkpoint.weights, checkpoint.optimizer, checkpoint.extra)
        self.saved_step, self.notes = checkpoint.facts.step, dict(checkpoint.facts.notes)
        self._has_whole, self._failure = True, None
        self._interval.start(checkpoint.facts.step)
        return checkpoint.facts.step

    def _check(self, checkpoint: Checkpoint) -> None:
        facts, config = checkpoint.facts, self._config
        path = self._directory.checkpoints / f"step-{facts.step}"
        if facts.step > self._plan.total_steps:
            raise InputError(f"{path}: is further ({facts.step}) than the recipe goes ({self._plan.total_steps} steps)")
        if (facts.config_digest, facts.seed) != (config.digest(), config.seed):
            raise InputError(f"{path}: was written under another config; use that config, or another --run")
        if facts.data.get("features") != self._features:
            raise InputError(
                f"{path}: was trained on other features than those of {config.data.features}; use that file or a copy of "
                "it, or another --run"
            )
        if facts.data != self._data():
            raise InputError(
                f"{path}: was trained on another shard set ({facts.data['samples']} videos) than "
                f"{config.data.train} ({self._plan.train_samples} videos); use that set, or another --run"
            )

    def _settle(self, outcome: SaveOutcome, now: int) -> None:
        """A checkpoint is whole, or failed, after `now` updates: tell, and decide when the next one is due."""
        assert self._under_way is not None
        _, step, stall = self._under_way
        self._under_way = None
        path = self._directory.checkpoints / f"step-{step}"
        told: dict[str, Any] = {}
        if self._interval.automatic:
            cost = None if outcome.failure else stall + outcome.write_seconds
            told = self._interval.plan_next(step, now, cost)
            # Rank 0's answer for all: its clock is not theirs.
            with self._waiting():
                told["next_step"] = int(gather([float(told["next_step"])], self._device)[0])
            self._interval.set(told["next_step"])
        if outcome.failure is None:
            self._has_whole, self._failure = True, None
            relative = str(path.relative_to(self._directory.path))
            self._log(
                "checkpoint", step=step, seconds=stall, write_seconds=outcome.write_seconds, bytes=outcome.size,
                path=relative, **({"interval": told} if told else {}),
            )  # fmt: skip
            return
        self.saved_step = None
        self._failure = (
            f"{path}: cannot write the checkpoint: {outcome.failure}; free space"
            f"{' (the checkpoint before is whole)' if self._has_whole else ''} and start the same command again"
        )
        if not self._has_whole:
            raise OperationFailed(self._failure)
        self._log(
            "warning",
            sentence=f"{path}: cannot write the checkpoint: {outcome.failure}; the checkpoint before is whole and the run "
            "goes on, but it ends with an error if its last one cannot be written either: free space",
        )

    def _data(self) -> dict[str, Any]:
        shards = self._parts.train.shards
        told = {"plan": shards.manifest.plan, "samples": len(shards), "label_names": list(shards.label_names)}
        return told if self._features is None else {**told, "features": self._features}
