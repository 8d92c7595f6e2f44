"""The evaluations in a run, with the statistics that are measured before them, as events of its log."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from hpcvideo.config import RunConfig
from hpcvideo.distributed.device import Device
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.training.build import RunParts
from hpcvideo.training.evaluate import evaluate
from hpcvideo.training.loader_report import LoaderReport, gather_report
from hpcvideo.training.precise_batches import measure_statistics
from hpcvideo.training.recipe import RunPlan, interval_steps
from hpcvideo.training.run_log import RunLog


class Evaluations:
    """When the validation set is scored, and how. All methods but `due` are collective.

    between: called by every rank after each batch that is scored, with the step; it may raise, to break off. alive: called
    after each batch that is measured, which nothing may break off: the statistics would be half measured. waiting: gives a
    block in which this rank waits for others.
    """

    def __init__(
        self, config: RunConfig, plan: RunPlan, parts: RunParts, device: Device, clock: PhaseClock, log: RunLog,
        between: Callable[[int], None], alive: Callable[[], None], waiting: Callable[[], AbstractContextManager[object]],
    ) -> None:  # fmt: skip
        self._config, self._plan, self._parts, self._device = config, plan, parts, device
        self._clock, self._log, self._between, self._alive, self._waiting = clock, log, between, alive, waiting
        self.last_step = -1
        """The last step that was evaluated, in this start or before."""
        self._every = interval_steps(config.evaluation.every_epochs, plan)

    def due(self, step: int) -> bool:
        """Whether the interval says to evaluate after `step` updates."""
        there = self._every is not None and self._parts.validation is not None
        return there and step > 0 and step % (self._every or 1) == 0

    def missing(self, step: int) -> bool:
        """Whether an evaluation is due that was not made."""
        return self.due(step) and self.last_step != step

    def at_the_end(self, step: int) -> bool:
        """What is still to do after the last step: score, or measure for the last checkpoint alone. Gives whether statistics
        were measured."""
        if self._parts.validation is None:
            with self._clock.phase("evaluation"), self._parts.method.averaged_weights():
                self._measure(step)
            self._clock.take()
        elif self.last_step != step:
            self.run(step)
        else:
            return False
        return self._config.recipe.batch_norm.precise_batches > 0

    def run(self, step: int) -> None:
        """Measure, score and log."""
        assert self._parts.validation is not None
        views = self._config.evaluation

        def progress(done: int, of: int) -> None:
            self._log.tell(event="progress", doing="evaluate", done=done, of=of)
            self._between(step)

        try:
            with self._clock.phase("evaluation"), self._parts.method.averaged_weights() as averaged:
                self._measure(step)
                result = evaluate(
                    self._parts.method, self._parts.task, self._parts.validation, views.batch, self._device, views.average,
                    progress=progress, waiting=self._waiting,
                )  # fmt: skip
        finally:
            seconds = self._clock.take()["evaluation"]
        self._log.write(
            "evaluation", step=step, seconds=seconds, protocol=result.protocol,
            weights="averaged" if averaged else "trained", clips=result.clips,
            left_out=len(self._parts.validation.shards) - result.clips, metrics=result.metrics,
        )  # fmt: skip
        self.last_step = step
        with self._waiting():
            report = gather_report(self._parts.validation, self._device)
        self.tell_bad_clips(report, "validation", step)

    def tell_bad_clips(self, report: LoaderReport, which: str, step: int) -> None:
        """Log what loaders skipped. Raises OperationFailed where it was more than data.max_bad_videos."""
        for fact in report.new_bad_clips:
            self._log.write("bad_clip", step=step, set=which, **fact)
        report.check(self._config.data.max_bad_videos)

    def _measure(self, step: int) -> None:
        """Measure BatchNorm's statistics, where the recipe says so, in the phase that is open."""
        if not (count := self._config.recipe.batch_norm.precise_batches):
            return
        began = time.perf_counter()

        def progress(done: int) -> None:
            self._log.tell(event="progress", doing="measure BatchNorm", done=done, of=count)
            self._alive()

        measure_statistics(self._parts.method, self._parts.train, self._plan.split, step, count, progress=progress)
        self._device.synchronise()
        clips = count * self._plan.split.micro_batch * self._plan.split.data_parallel
        self._log.write("statistics", step=step, micro_batches=count, clips=clips, seconds=time.perf_counter() - began)
