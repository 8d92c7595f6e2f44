"""The trainer: one loop for every task and method."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

from hpcvideo.config import RunConfig
from hpcvideo.data import Batch
from hpcvideo.data.batch import take_micro_batches
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.distributed.process_group import barrier, gather, gather_text
from hpcvideo.errors import HpcvideoError, OperationFailed, Stopped, StoppedForGood
from hpcvideo.methods.precision import slow_precision
from hpcvideo.methods.protocol import FrameLatency, StepResult
from hpcvideo.runs import RunDirectory
from hpcvideo.runs.one_at_a_time import OneAtATime
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.training.boundary import BadStep, Boundary
from hpcvideo.training.build import build_run
from hpcvideo.training.effective_values import effective_values
from hpcvideo.training.evaluating import Evaluations
from hpcvideo.training.frame_latency import summarise_latencies
from hpcvideo.training.loader_report import gather_report
from hpcvideo.training.opening import open_run_directory
from hpcvideo.training.recipe import RunPlan, learning_rate
from hpcvideo.training.run_log import RunLog
from hpcvideo.training.saving import Saver
from hpcvideo.training.staging import staged_sets
from hpcvideo.training.step_times import StepTimes
from hpcvideo.training.step_trace import StepTracer
from hpcvideo.training.stop_signals import StopSignals
from hpcvideo.training.stopping import STOP_FILE, StopAsked
from hpcvideo.training.stragglers import Stragglers, same_work
from hpcvideo.training.watchdog import Watchdog


@dataclass
class Trainer:
    """Trains one run on one rank, from a checkpoint where there is one. `began`: when all of it did, by time.time."""

    config: RunConfig
    plan: RunPlan
    place: ProcessEnvironment
    device: Device
    directory: RunDirectory
    log: RunLog
    lock: OneAtATime | None
    boundary: Boundary
    signals: StopSignals | None
    began: float
    startup: dict[str, float]
    timeout: timedelta

    def run(self, resumes: bool, evaluated: Collection[int]) -> None:
        """The whole run. resumes: from a checkpoint; evaluated: after which steps it was before, known to rank 0 alone."""
        self.step = 0  # updates done
        self.started = time.time()
        self.clock = PhaseClock(self.device.synchronise)
        self.nodes = gather_text(self.place.node_name)
        signals = self.signals
        self.watchdog = Watchdog(
            self.config.faults.watchdog_seconds, self.directory, self.place.rank, self.nodes, lambda: self.clock.running,
            lambda: signals is not None and signals.received is not None,
        )  # fmt: skip
        self.tracer = StepTracer(
            self.config.logging.trace_step, self.clock, self.device, self.place, self.directory, self.log.warn,
            self.watchdog.waiting,
        )  # fmt: skip
        self.watchdog.start()
        try:
            try:
                self._look()
                self.parts = build_run(self.config, self.plan, self.place, self.device, resumes)
            except StopAsked as asked:
                raise _stopped(asked.cause, self.step) from None
            with self.parts.train:
                self._run(evaluated)
            if self.parts.validation is not None:
                self.parts.validation.close()
        finally:
            self.watchdog.stop()

    def _run(self, evaluated: Collection[int]) -> None:
        parts = self.parts
        self.saver = Saver(
            self.config, self.plan, self.place, self.device, parts, self.directory, self.log.write, self.watchdog.alive,
            self.watchdog.waiting, self.timeout, (lambda: None) if self.lock is None else self.lock.confirm,
        )  # fmt: skip
        self.evaluations = Evaluations(
            self.config, self.plan, parts, self.device, self.clock, self.log, self._between_batches, self.watchdog.alive,
            self.watchdog.waiting,
        )  # fmt: skip
        share = parts.method.share
        replicas = gather([float(share.index)], self.device)[:, 0].int().tolist()
        self.stragglers = Stragglers(same_work(replicas))
        resumed = self._go_back()
        if gather([float(self.step in evaluated)], self.device)[0].item():
            self.evaluations.last_step = self.step
        self.startup["build"] = time.time() - self.started
        open_run_directory(self.directory, self.config, self.place, self.device)
        self.log.write("start" if resumed is None else "resume", **self._circumstances())
        if parts.initial_weights is not None:
            self.log.write("init", **parts.initial_weights)
        try:
            with staged_sets(
                self.config, self.plan, self.place, self.device, share, self.step, self.log.write, self._while_staging,
                self.watchdog.waiting,
            ) as self.at_step:  # fmt: skip
                try:
                    self._steps_and_evaluations()
                except StopAsked as asked:
                    self._leave(asked.cause)  # saves before the staging is stopped, which may take a while
        except StopAsked as asked:
            self._leave(asked.cause)
        self._save()
        self.saver.finish()
        self.boundary.finish()
        self.log.write(
            "end", step=self.step, samples=self._samples(), seconds=time.time() - self.started, reason="finished"
        )
        with self.watchdog.waiting():
            barrier(self.device)

    def _steps_and_evaluations(self) -> None:
        self._look()
        self.watchdog.begin()
        if self.step < self.plan.total_steps and self.evaluations.missing(self.step):
            self.evaluations.run(self.step)  # a stop came in its place
        self._steps()
        if self.evaluations.at_the_end(self.step):
            self.saver.saved_step = None  # what was measured is to be saved, too

    def _steps(self) -> None:
        self.times, self.skipped = StepTimes(), 0
        self.latencies: list[FrameLatency] = []
        while self.step < self.plan.total_steps:
            try:
                self._steps_from_here()
            except BadStep as bad:
                self._roll_back(bad)

    def _steps_from_here(self) -> None:
        split, total = self.plan.split, self.plan.total_steps
        batches = self._charged(self.parts.train.training(split.global_batch, self.step, total, split.micro_batch))
        while self.step < total:
            self.at_step(self.step)
            self.tracer.begin(self.step + 1)
            began = time.perf_counter()
            result = self._update(batches)
            self.step += 1
            with self.clock.phase("checkpoint") if self.saver.is_writing else nullcontext():
                self.saver.at_step(self.step)
            save, evaluate = self.saver.due(self.step), self.evaluations.due(self.step)
            save_now = self._meet(result, at_once=save or evaluate or self.step == total)
            if result is not None:
                self.times.add(time.perf_counter() - began, self.clock.take(), result.loss)
                self.tracer.end(self.step)
                self.skipped += result.skipped
                self.latencies += result.latencies
                self.log.tell(event="progress", step=self.step, total_steps=total, loss=result.loss)
                if self.step % self.config.logging.every_steps == 0 or self.step == total:
                    self._log_steps(result)
            self.watchdog.alive(f"step {self.step}")
            if evaluate:
                self.evaluations.run(self.step)
            # Where statistics are measured, the last one waits for them.
            measured = self.step == total and self.config.recipe.batch_norm.precise_batches > 0
            if (save or save_now) and not measured:
                self._save()
            if save_now:
                self.saver.settle(self.step)  # one that failed is told; the run goes on while an older one is whole
                self.boundary.saved()

    def _update(self, batches: Iterator[Batch]) -> StepResult | None:
        """One update, and equal statistics on all ranks; None where this batch is to be left out."""
        if self.step + 1 in self.boundary.bad_loss.left_out:
            for _ in take_micro_batches(batches, self.plan.split.accumulation):
                pass
            self.clock.take()
            return None
        self.parts.method.set_learning_rate(learning_rate(self.config.recipe, self.plan, self.step))
        result = self.parts.method.step(batches, self.step, self.clock)
        with self.clock.phase("communication_exposed"):
            # After each step, so that no bit depends on when checkpoints, evaluations and stops come.
            self.parts.method.average_statistics()
        return result

    def _meet(self, result: StepResult | None, at_once: bool) -> bool:
        """Whether somebody wants a checkpoint now."""
        with self.clock.phase("communication_exposed"):
            if result is None or result.skipped:
                return self.boundary.meet(self.step, None, 0.0, at_once)
            return self.boundary.meet(self.step, result.loss, result.gradient_norm, at_once)

    def _roll_back(self, bad: BadStep) -> None:
        """Go on from the last checkpoint, from now on without the batch of a bad step. Raises OperationFailed."""
        self.boundary.finish()
        self.boundary.bad_loss.leave_out(bad.step, bad.fault)
        reached = self.step
        if self._go_back() is None:
            raise OperationFailed(
                f"step {bad.step}: {bad.fault}, and there is no checkpoint yet to go back to; set checkpoint.every_steps to "
                f"less than {bad.step}"
            )
        self.clock.take()
        self.times, self.skipped = StepTimes(), 0
        self.log.write("rollback", step=reached, to_step=self.step, reason=bad.fault, skipped_batch=bad.step)

    def _go_back(self) -> int | None:
        """To the newest checkpoint; gives its step, None where there is none."""
        step = self.saver.resume()
        self.boundary.bad_loss.load(self.saver.notes)
        self.step = step or 0
        return step

    def _save(self) -> None:
        self.saver.notes = self.boundary.bad_loss.notes()
        self.saver.save(self.step)

    def _leave(self, cause: str) -> NoReturn:
        """Save, and end all ranks in good order."""
        self.watchdog.alive("the wish to stop")
        if self.step > 0:
            self._save()
            self.saver.finish()
        self.boundary.finish()
        self.log.write("preemption", step=self.step, cause=cause)
        raise _stopped(cause, self.step)

    def _between_batches(self, step: int) -> None:
        self.watchdog.alive()
        with self.watchdog.waiting():
            self.boundary.look(step)

    def _while_staging(self) -> None:
        self.watchdog.alive("a look at the staging")
        self._look()

    def _look(self) -> None:
        with self.watchdog.waiting():
            self.boundary.look(self.step, at_once=True)

    def _log_steps(self, result: StepResult) -> None:
        """A line for the steps since the last one, and a word about ranks that are slow."""
        steps = self.times.steps
        with self.watchdog.waiting():
            loss, seconds, own_work = self.times.summary(self.device)
            report = gather_report(self.parts.train, self.device)
        scaled = result.loss_scale is not None
        overflows = {"loss_scale": result.loss_scale, "skipped_updates": self.skipped} if scaled else {}
        self.skipped = 0
        live = {"latency": summarise_latencies(self.latencies)} if self.latencies else {}
        self.latencies = []
        slowest = max(range(len(own_work)), key=own_work.__getitem__)
        self.log.write(
            "step", step=self.step, epoch=self.plan.epoch(self.step), samples=self._samples(), steps=steps, loss=loss,
            lr=learning_rate(self.config.recipe, self.plan, self.step - 1), gradient_norm=result.gradient_norm,
            seconds=seconds, slowest={"rank": slowest, "node": self.nodes[slowest], "seconds": own_work[slowest]},
            loader=report.seconds, **overflows, **live,
        )  # fmt: skip
        for slow in self.stragglers.look(own_work):
            self.log.write(
                "straggler", step=self.step, rank=slow.rank, node=self.nodes[slow.rank], seconds=slow.seconds,
                median_seconds=slow.median_seconds,
            )  # fmt: skip
        self.evaluations.tell_bad_clips(report, "train", self.step)

    def _charged(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, the wait for each charged to data_wait."""
        while True:
            with self.clock.phase("data_wait"):
                batch = next(batches, None)
            if batch is None:
                return
            self.watchdog.alive()
            yield batch

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
            "startup_seconds": time.time() - self.began,
            "startup": self.startup,
            **self.saver.facts(),
            **self.parts.method.facts(),
        }

    def _samples(self) -> int:
        return self.plan.samples(self.step)


def _stopped(cause: str, step: int) -> HpcvideoError:
    """What all ranks raise where one of them was asked to stop."""
    saved = f"after step {step}, which is saved" if step else "before the first step"
    if cause == STOP_FILE:
        return StoppedForGood(f"stopped {saved}, since the run directory has a file named stop; delete it to go on")
    return Stopped(f"stopped by {cause} {saved}; the same command goes on")
