"""A pipeline's step by events: DeepSpeed's own instructions for every stage, with seconds for each of them.

Follows what hpcvideo.methods.pipeline.engine and its wire do: a stage that sends goes on at once, one that receives stands
still, and a message moves only when the receiver waits for it (gloo announces a send and waits for a receive; NCCL's
kernels meet). So a send hides behind its sender's work, never behind its receiver's.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heappop, heappush
from operator import itemgetter
from typing import NamedTuple

from hpcvideo.scaling.model.estimate import Values
from hpcvideo.scaling.model.schedule_boxes import Box

ACTIVATION_MESSAGES = 3
"""Messages of an activation: how long its labels are, the labels, itself. A gradient is one."""

MESSAGES_AHEAD = 8
"""Messages that a stage may have on their way before it waits for the oldest."""


@dataclass(frozen=True)
class StageTimes:
    """Seconds of one stage: for one micro-batch, and at the end of the step.

    activation_send: of an activation's way to the next stage, activation_send of the last stage is not used. gradient_send:
    of the gradient's way to the stage before. load: of bringing the micro-batch to the device, used of the first stage.
    exchange: what is still waited for of the exchange of gradients over replicas behind the stage's last backward.
    optimizer: of the update, which begins when all stages are there (the norm is that of the whole model).
    """

    forward: float
    backward: float
    activation_send: float = 0.0
    gradient_send: float = 0.0
    load: float = 0.0
    exchange: float = 0.0
    optimizer: float = 0.0


@dataclass(frozen=True)
class StageRun:
    """What one stage did, in seconds. busy: loading, forward and backward. waiting: for other stages. finished: when its
    last backward ended."""

    busy: float
    waiting: float
    finished: float


@dataclass(frozen=True)
class PipelineRun:
    """One step. step_seconds: until the last stage's update is done. boxes: rows are stages."""

    step_seconds: float
    stages: tuple[StageRun, ...]
    boxes: tuple[Box, ...]

    @property
    def span(self) -> float:
        """Seconds until the last backward of all ends."""
        return max(stage.finished for stage in self.stages)

    @property
    def bubbles(self) -> tuple[float, ...]:
        """Of each stage, the share of `span` in which it does not compute."""
        return tuple(1 - stage.busy / self.span if self.span else 0.0 for stage in self.stages)

    @property
    def bubble(self) -> float:
        """The mean of `bubbles`: (S - 1) / (M + S - 1) for S equal stages, M micro-batches and free messages."""
        return sum(self.bubbles) / len(self.stages)


def handover_seconds(sizes: Sequence[float], same_node: bool, values: Values) -> float:
    """Seconds of the messages of these bytes to a neighbouring stage that takes them one after the other.

    Each costs two latencies, that of the receiver's call and its own, and its bytes at the bandwidth of the link.
    """
    where = "intra" if same_node else "inter"
    latency, bandwidth = values[f"{where}_latency"], values[f"{where}_bandwidth"]
    return sum(2 * latency + size / bandwidth for size in sizes)


@lru_cache(maxsize=64)
def train_instructions(stages: int, micro_batches: int) -> tuple[tuple[str, ...], ...]:
    """Names of the instructions of DeepSpeed's TrainSchedule, by stage, in their order."""
    # Here, since DeepSpeed takes seconds to load. On loading it tells that there is no accelerator, which no plan needs.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        from deepspeed.runtime.pipe.schedule import TrainSchedule
    finally:
        logging.disable(before)
    return tuple(
        tuple(one.name for step in TrainSchedule(micro_batches, stages, stage).steps() for one in step)
        for stage in range(stages)
    )


def simulate_pipeline(
    stages: Sequence[StageTimes], micro_batches: int, ahead: int = MESSAGES_AHEAD, shared_links: bool = False
) -> PipelineRun:
    """One training step of `micro_batches` through the stages.

    ahead: see MESSAGES_AHEAD. shared_links: each stage sends over one link and receives over one, a message at a time, as
    hosts do that hold one stage each; else each pair of neighbours has links of its own.
    Raises ValueError for no stage, no micro-batch or negative seconds.
    """
    if not stages or micro_batches < 1 or ahead < ACTIVATION_MESSAGES:
        raise ValueError(f"{len(stages)} stages, {micro_batches} micro-batches, {ahead} messages ahead: too few")
    if any(not value >= 0 for times in stages for value in vars(times).values()):
        raise ValueError(f"seconds of stages must be numbers from 0 on, not {list(stages)}")
    return _Simulation(stages, micro_batches, ahead, shared_links).run()


_WORK = {"LoadMicroBatch": "load", "ForwardPass": "forward", "BackwardPass": "backward"}
_POSTS = {"SendActivation": 1, "SendGrad": -1}  # instruction -> from a stage to the one that takes it
_TAKES = {"RecvActivation": -1, "RecvGrad": 1}


class _Message(NamedTuple):
    """What one stage hands another. number: of the micro-batch."""

    source: int
    target: int
    number: int


@lru_cache(maxsize=64)
def _programs(stages: int, micro_batches: int) -> tuple[tuple[tuple[tuple[str, int], ...], ...], tuple[_Message, ...]]:
    """(what each stage does: (`load`, `forward` or `backward`, micro-batch), (`post` or `take`, message), (`exchange`, 0);
    all messages). What two stages hand each other keeps its order, so the n-th that one takes is the n-th that was posted.
    """
    messages: dict[_Message, int] = {}
    programs = []
    for stage, stream in enumerate(train_instructions(stages, micro_batches)):
        done: Counter[str] = Counter()
        program: list[tuple[str, int]] = []
        for name in stream:
            number = done[name]
            done[name] += 1
            if name in _WORK:
                # The last stage has its labels from the one before; the schedule's loading is of no account there.
                program += [(_WORK[name], number)] if name != "LoadMicroBatch" or stage == 0 else []
            elif name in _POSTS:
                message = _Message(stage, stage + _POSTS[name], number)
                program.append(("post", messages.setdefault(message, len(messages))))
            elif name in _TAKES:
                message = _Message(stage + _TAKES[name], stage, number)
                program.append(("take", messages.setdefault(message, len(messages))))
            elif name == "ReduceGrads":
                program.append(("exchange", 0))
        programs.append(tuple(program))
    return tuple(programs), tuple(messages)


class _Simulation:
    """Lets each stage go through its program until it has to wait. With shared links in the order of time, since then it
    matters which message came first; else in any order that messages allow, which gives the same."""

    def __init__(self, stages: Sequence[StageTimes], micro_batches: int, ahead: int, shared_links: bool) -> None:
        self._stages, self._ahead, self._shared = stages, ahead, shared_links
        self._programs, self._messages = _programs(len(stages), micro_batches)
        self._places, self._clocks = [0] * len(stages), [0.0] * len(stages)
        self._waited, self._finished = [0.0] * len(stages), [0.0] * len(stages)
        self._busy = [0.0] * len(stages)
        self._under_way: list[deque[int]] = [deque() for _ in stages]
        count = len(self._messages)
        self._posted: list[float | None] = [None] * count
        self._awaited: list[float | None] = [None] * count
        self._arrived: list[float | None] = [None] * count
        self._sleepers: dict[int, list[int]] = {}  # message -> stages that wait for it
        self._sending, self._receiving = [0.0] * len(stages), [0.0] * len(stages)
        self._ready = [(0.0, stage) for stage in range(len(stages))]
        self._boxes: list[Box] = []

    def run(self) -> PipelineRun:
        while self._ready:
            self._go_on(heappop(self._ready)[1])
        unfinished = [stage for stage, place in enumerate(self._places) if place < len(self._programs[stage])]
        assert not unfinished, f"stages {unfinished} wait for each other"
        together = max(self._clocks)
        for stage, times in enumerate(self._stages):
            self._wait(stage, together)
            self._box(stage, "optimizer", together, together + times.optimizer)
        self._boxes.sort(key=itemgetter(0, 2, 3))
        runs = map(StageRun, self._busy, self._waited, self._finished)
        return PipelineRun(together + max(times.optimizer for times in self._stages), tuple(runs), tuple(self._boxes))

    def _go_on(self, stage: int) -> None:
        """As far as the stage's program goes without waiting for what has not happened."""
        program, times = self._programs[stage], self._stages[stage]
        seconds = {"load": times.load, "forward": times.forward, "backward": times.backward, "exchange": times.exchange}
        while self._places[stage] < len(program):
            what, number = program[self._places[stage]]
            if what in seconds:
                start = self._clocks[stage]
                end = self._clocks[stage] = start + seconds[what]
                self._box(stage, what, start, end, "" if what == "exchange" else str(number))
                if what != "exchange":
                    self._busy[stage] += seconds[what]
                if what == "backward":
                    self._finished[stage] = end
            elif self._shared and self._ready and self._ready[0][0] < self._clocks[stage]:
                heappush(self._ready, (self._clocks[stage], stage))  # another one comes to its message before
                return
            elif not (self._post(stage, number) if what == "post" else self._take(stage, number)):
                return
            self._places[stage] += 1

    def _post(self, stage: int, message: int) -> bool:
        under_way = self._under_way[stage]
        if self._posted[message] is None:
            self._posted[message] = self._clocks[stage]
            self._move(message)
            upwards = self._messages[message].target > stage
            under_way.extend([message] * (ACTIVATION_MESSAGES if upwards else 1))
        while len(under_way) > self._ahead:
            if not self._has(stage, under_way[0]):
                return False
            under_way.popleft()
        return True

    def _take(self, stage: int, message: int) -> bool:
        if self._awaited[message] is None:
            self._awaited[message] = self._clocks[stage]
            self._move(message)
        return self._has(stage, message)

    def _has(self, stage: int, message: int) -> bool:
        """Wait for a message's arrival; False where that is not known yet."""
        arrived = self._arrived[message]
        if arrived is None:
            self._sleepers.setdefault(message, []).append(stage)
            return False
        self._wait(stage, arrived)
        return True

    def _move(self, message: int) -> None:
        """Let a message go that both sides have come to."""
        posted, awaited = self._posted[message], self._awaited[message]
        if posted is None or awaited is None:
            return
        source, target, number = self._messages[message]
        times = self._stages[source]
        start = max(posted, awaited)
        if self._shared:
            start = max(start, self._sending[source], self._receiving[target])
        end = start + (times.activation_send if target > source else times.gradient_send)
        self._arrived[message] = self._sending[source] = self._receiving[target] = end
        self._box(source, "send", start, end, str(number))
        for sleeper in self._sleepers.pop(message, ()):
            heappush(self._ready, (max(end, self._clocks[sleeper]), sleeper))

    def _wait(self, stage: int, until: float) -> None:
        clock = self._clocks[stage]
        if until > clock:
            self._box(stage, "wait", clock, until)
            self._waited[stage] += until - clock
            self._clocks[stage] = until

    def _box(self, row: int, kind: str, start: float, end: float, label: str = "") -> None:
        if end > start:
            self._boxes.append(Box(row, kind, start, end, label))
