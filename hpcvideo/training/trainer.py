"""The trainer: one loop for every task and method."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from hpcvideo.config import RunConfig
from hpcvideo.data import Batch
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.distributed.process_group import barrier, gather, joined
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.methods.precision import slow_precision
from hpcvideo.runs import EventLog, RunDirectory, read_events
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.training.build import RunParts, build_run
from hpcvideo.training.checkpoint import Checkpoint, latest_checkpoint, read_checkpoint, write_checkpoint
from hpcvideo.training.effective_values import effective_values
from hpcvideo.training.evaluate import evaluate
from hpcvideo.training.loader_report import LoaderReport, gather_report
from hpcvideo.training.opening import open_run_directory
from hpcvideo.training.precise_batches import measure_statistics
from hpcvideo.training.recipe import RunPlan, interval_steps, learning_rate
from hpcvideo.training.staging import staged_sets
from hpcvideo.training.step_times import StepTimes

Listener = Callable[[dict[str, Any]], None]
"""Is told every event that rank 0 writes, and {"event": "progress", "step", "total_steps", "loss"} after every step."""


def train(
    config: RunConfig, plan: RunPlan, run: Path, place: ProcessEnvironment, listener: Listener = lambda event: None
) -> None:
    """Train to the end of the recipe, from the run directory's last checkpoint where it has one. Collective.

    plan: what `check_run` gave for this config, world size and run directory. Every rank calls this with the same
    arguments. Raises InputError or OperationFailed in one sentence.
    """
    with joined(place) as device:
        # Rank 0 decides for all: on a shared file system the others may not see yet what was written last.
        directory = RunDirectory(run)
        seen = [0.0, 0.0]
        if place.rank == 0:
            has_checkpoint = latest_checkpoint(directory.checkpoints) is not None
            seen = [float(finished_step(directory) == plan.total_steps), float(has_checkpoint)]
        finished, resumes = gather(seen, device)[0].bool().tolist()
        if finished:
            if place.rank == 0:
                listener({"event": "end", "step": plan.total_steps, "reason": "already finished", "seconds": 0.0})
            return
        parts = build_run(config, plan, place, device, resumes)
        with parts.train:
            _Training(config, plan, place, device, parts, directory, listener).run()
        if parts.validation is not None:
            parts.validation.close()


def finished_step(directory: RunDirectory) -> int | None:
    """The step after which the run's log says it ended, or None where it has not."""
    if not directory.events.is_file():
        return None
    last = deque(read_events(directory.events), maxlen=1)
    return int(last[0]["step"]) if last and last[0]["event"] == "end" else None


@dataclass
class _Training:
    config: RunConfig
    plan: RunPlan
    place: ProcessEnvironment
    device: Device
    parts: RunParts
    directory: RunDirectory
    listener: Listener

    def __post_init__(self) -> None:
        self.step = 0  # updates done
        self.started = time.time()
        self.clock = PhaseClock(self.device.synchronise)
        self.evaluate_every = interval_steps(self.config.evaluation.every_epochs, self.plan)
        checkpoint = self.config.checkpoint
        self.checkpoint_every = checkpoint.every_steps or interval_steps(checkpoint.every_epochs, self.plan)
        self.saved_step: int | None = None

    def run(self) -> None:
        resumed = self._resume()
        open_run_directory(self.directory, self.config, self.place, self.device)
        self._log("resume" if resumed else "start", **self._circumstances())
        if self.parts.initial_weights is not None:
            self._log("init", **self.parts.initial_weights)
        share = self.parts.method.share
        with staged_sets(self.config, self.plan, self.place, self.device, share, self.step, self._log) as self.at_step:
            self._steps()
            if self.parts.validation is None:
                self._measure_alone()
            elif not self._due(self.evaluate_every):
                self._evaluate()
        self._save()
        self._log("end", step=self.step, samples=self._samples(), seconds=time.time() - self.started, reason="finished")
        barrier(self.device)

    def _steps(self) -> None:
        times, skipped = StepTimes(), 0
        split, total = self.plan.split, self.plan.total_steps
        batches = self._charged(self.parts.train.training(split.global_batch, self.step, total, split.micro_batch))
        while self.step < total:
            self.at_step(self.step)
            began = time.perf_counter()
            rate = learning_rate(self.config.recipe, self.plan, self.step)
            self.parts.method.set_learning_rate(rate)
            result = self.parts.method.step(batches, self.step, self.clock)
            self.step += 1
            times.add(time.perf_counter() - began, self.clock.take(), result.loss)
            skipped += result.skipped
            if not math.isfinite(result.gradient_norm) and not result.skipped:
                raise OperationFailed(
                    f"step {self.step}: the gradient norm is {result.gradient_norm} and the loss {result.loss}; lower "
                    "recipe.base_lr_per_64_clips or lengthen the warm-up (the last checkpoint is unharmed)"
                )
            self._tell(event="progress", step=self.step, total_steps=total, loss=result.loss)
            if self.step % self.config.logging.every_steps == 0 or self.step == total:
                steps = times.steps
                loss, seconds = times.summary(self.device)
                report = gather_report(self.parts.train, self.device)
                scaled = result.loss_scale is not None
                overflows = {"loss_scale": result.loss_scale, "skipped_updates": skipped} if scaled else {}
                skipped = 0
                self._log(
                    "step", step=self.step, epoch=self.plan.epoch(self.step), samples=self._samples(), steps=steps,
                    loss=loss, lr=rate, gradient_norm=result.gradient_norm, seconds=seconds, loader=report.seconds,
                    **overflows,
                )  # fmt: skip
                self._tell_bad_clips(report, "train")
            if self._due(self.evaluate_every) and self.parts.validation is not None:
                self._evaluate()
            # Where statistics are measured, the last one waits for them.
            measured = self.step == total and self.config.recipe.batch_norm.precise_batches > 0
            if self._due(self.checkpoint_every) and not measured:
                self._save()

    def _charged(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, the wait for each charged to data_wait."""
        while True:
            with self.clock.phase("data_wait"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _tell_bad_clips(self, report: LoaderReport, which: str) -> None:
        for fact in report.new_bad_clips:
            self._log("bad_clip", step=self.step, set=which, **fact)
        report.check(self.config.data.max_bad_videos)

    def _due(self, interval: int | None) -> bool:
        return interval is not None and self.step > 0 and self.step % interval == 0

    def _evaluate(self) -> None:
        assert self.parts.validation is not None
        with self.clock.phase("evaluation"), self.parts.method.averaged_weights() as averaged:
            self._measure()
            views = self.config.evaluation
            result = evaluate(
                self.parts.method, self.parts.task, self.parts.validation, views.batch, self.device, views.average,
                progress=lambda done, of: self._tell(event="progress", doing="evaluate", done=done, of=of),
            )  # fmt: skip
        seconds = self.clock.take()["evaluation"]
        self._log(
            "evaluation", step=self.step, seconds=seconds, protocol=result.protocol,
            weights="averaged" if averaged else "trained", clips=result.clips,
            left_out=len(self.parts.validation.shards) - result.clips, metrics=result.metrics,
        )  # fmt: skip
        self._tell_bad_clips(gather_report(self.parts.validation, self.device), "validation")

    def _measure(self) -> None:
        """Measure BatchNorm's statistics, where the recipe says so, in the phase that is open."""
        if not (count := self.config.recipe.batch_norm.precise_batches):
            return
        began = time.perf_counter()
        measure_statistics(
            self.parts.method, self.parts.train, self.plan.split, self.step, count,
            progress=lambda done: self._tell(event="progress", doing="measure BatchNorm", done=done, of=count),
        )  # fmt: skip
        self.device.synchronise()
        clips = count * self.plan.split.micro_batch * self.plan.split.data_parallel
        self._log("statistics", step=self.step, micro_batches=count, clips=clips, seconds=time.perf_counter() - began)

    def _measure_alone(self) -> None:
        """`_measure` for the last checkpoint of a run that is not evaluated."""
        with self.clock.phase("evaluation"), self.parts.method.averaged_weights():
            self._measure()
        self.clock.take()

    def _save(self) -> None:
        if self.saved_step == self.step:
            return
        with self.clock.phase("checkpoint"):
            # Averaged before saving and kept so: what is saved is what this run goes on with.
            self.parts.method.average_statistics()
            method = self.parts.method
            checkpoint = Checkpoint(
                self.step, self.config.seed, self.config.digest(), self._data(), method.weights(),
                method.optimizer_state(), method.extra_state(),
            )  # fmt: skip
            if self.place.rank == 0:
                path, size = write_checkpoint(self.directory.checkpoints, checkpoint, self.config.checkpoint.keep)
            # All wait here: else the others would wait in the next step, and book this as communication.
            barrier(self.device)
        self.saved_step = self.step
        seconds = self.clock.take()["checkpoint"]
        if self.place.rank == 0:
            relative = str(path.relative_to(self.directory.path))
            self._log("checkpoint", step=self.step, seconds=seconds, bytes=size, path=relative)

    def _resume(self) -> bool:
        path = latest_checkpoint(self.directory.checkpoints)
        steps = gather([-1.0 if path is None else float(path.name.removeprefix("step-"))], self.device)
        if float(steps.min()) != float(steps.max()):
            raise OperationFailed(
                f"{self.directory.checkpoints}: ranks see different latest checkpoints "
                f"(steps {int(steps.min())} and {int(steps.max())}); the run directory must be on a shared file system"
            )
        if path is None:
            return False
        checkpoint = read_checkpoint(path)
        if checkpoint.step > self.plan.total_steps:
            raise InputError(f"{path}: is further ({checkpoint.step}) than the recipe goes ({self.plan.total_steps} steps)")
        if (checkpoint.config_digest, checkpoint.seed) != (self.config.digest(), self.config.seed):
            raise InputError(f"{path}: was written under another config; use that config, or another --run")
        if checkpoint.data != self._data():
            raise InputError(
                f"{path}: was trained on another shard set ({checkpoint.data['samples']} videos) than "
                f"{self.config.data.train} ({self.plan.train_samples} videos); use that set, or another --run"
            )
        self.parts.method.load(checkpoint.weights, checkpoint.optimizer, checkpoint.extra)
        self.step = self.saved_step = checkpoint.step
        return True

    def _data(self) -> dict[str, Any]:
        shards = self.parts.train.shards
        return {"plan": shards.manifest.plan, "samples": len(shards), "label_names": list(shards.label_names)}

    def _circumstances(self) -> dict[str, Any]:
        values = effective_values(self.config, self.plan)
        slow = slow_precision(self.config.recipe.precision, self.device)  # of the devices here, which planning cannot know
        return {
            "run": self.config.name,
            "step": self.step,
            "world_size": self.place.world_size,
            "nodes": self.place.nodes,
            "ranks_per_node": self.place.local_world_size,
            **values,
            "warnings": values["warnings"] + ([slow] if slow else []),
            "frames": self.config.model.frames,
            "config_digest": self.config.digest(),
            "job_id": self.place.job_id,
            "launcher": self.place.launcher,
            "devices": self.device.describe(),
            "startup_seconds": time.time() - psutil.Process().create_time(),
            **self.parts.method.facts(),
        }

    def _samples(self) -> int:
        return self.step * self.plan.split.global_batch

    def _tell(self, **event: Any) -> None:
        if self.place.rank == 0:
            self.listener(event)

    def _log(self, event: str, **fields: Any) -> None:
        if self.place.rank == 0:
            EventLog(self.directory.events).write(event, **fields)
            self.listener({"event": event, **fields})
