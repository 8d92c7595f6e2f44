"""Records one step of a run: when each phase began and ended, on every rank (config `logging.trace_step`)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict

from hpcvideo.distributed.clock_offsets import measure_clock_offsets
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.distributed.process_group import gather_text
from hpcvideo.runs import RunDirectory
from hpcvideo.runs.durable import write_durably
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.runs.step_trace import RankTrace, Span, trace_path, trace_text


class StepTracer:
    """Lets `clock` note its spans during one update and writes them when it is over; does nothing in all others.

    step: the update (1-based) that is traced, None for none. warn: told on rank 0 where the file cannot be written, which
    ends no training. waiting: the block in which ranks wait for each other.
    """

    def __init__(
        self, step: int | None, clock: PhaseClock, device: Device, place: ProcessEnvironment, directory: RunDirectory,
        warn: Callable[[str], None], waiting: Callable[[], AbstractContextManager[None]],
    ) -> None:  # fmt: skip
        self._step, self._clock, self._device, self._place = step, clock, device, place
        self._directory, self._warn, self._waiting = directory, warn, waiting
        self._began = 0.0

    def begin(self, step: int) -> None:
        """Update `step` begins."""
        self._clock.spans = [] if step == self._step else None
        self._began = time.perf_counter()

    def end(self, step: int) -> None:
        """Update `step` is over. In the traced one collective, and outside of what counts as its time."""
        if step != self._step or self._clock.spans is None:
            return
        ended, spans = time.perf_counter(), self._clock.spans
        self._clock.spans = None
        own = RankTrace(self._place.rank, self._place.node_name, self._began, ended, tuple(Span(*span) for span in spans))
        with self._waiting():
            offsets = measure_clock_offsets(self._device)
            texts = gather_text(json.dumps(asdict(own)))
        if self._place.rank == 0:
            ranks = [
                RankTrace(**{**json.loads(text), "clock_offset": offset.seconds, "clock_error": offset.error})
                for text, offset in zip(texts, offsets, strict=True)
            ]
            path = trace_path(self._directory.traces, step)
            try:
                path.parent.mkdir(exist_ok=True)
                write_durably(path, trace_text(step, ranks).encode())
            except OSError as error:
                self._warn(f"{path}: the trace of step {step} cannot be written ({error.strerror}); training goes on")
