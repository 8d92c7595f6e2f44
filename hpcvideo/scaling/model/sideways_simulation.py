"""Sideways by events: what the real schedule lets each unit do at each step, with seconds for all of it.

Follows hpcvideo.methods.sideways.executor: a rank computes its units one after the other, those that exchange with other
ranks first, and sends what each makes while it goes on. A message is waited for at the next step, where it is read, and at
the latest at that step's end, as are those that were sent. So neighbours keep step with each other within a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from hpcvideo.methods.sideways.schedule import ClipSchedule
from hpcvideo.scaling.model.schedule_boxes import Box


@dataclass(frozen=True)
class UnitTimes:
    """Seconds of one unit for one frame of a micro-batch. features_send: of its output's way to another rank.
    cotangent_send: of what it hands down to one unit that it reads."""

    forward: float
    backward: float
    features_send: float = 0.0
    cotangent_send: float = 0.0


@dataclass(frozen=True)
class SidewaysRun:
    """One clip. steps: of it. clip_seconds: from its first step's begin until its last step's end; where clips stream, what
    one more clip takes. busy: seconds in which each rank computes in that time. boxes: rows are ranks, labels steps."""

    steps: int
    clip_seconds: float
    busy: tuple[float, ...]
    boxes: tuple[Box, ...]

    @property
    def bubbles(self) -> tuple[float, ...]:
        """Of each rank, the share of a clip's time in which it does not compute."""
        return tuple(max(0.0, 1 - busy / self.clip_seconds) if self.clip_seconds else 0.0 for busy in self.busy)

    @property
    def bubble(self) -> float:
        """The mean of `bubbles`."""
        return sum(self.bubbles) / len(self.busy)


def simulate_sideways(
    schedule: ClipSchedule,
    times: Mapping[str, UnitTimes],
    placement: Mapping[str, int] | None = None,
    batched: bool = False,
) -> SidewaysRun:
    """A clip through the units of a schedule's graph.

    times: of every unit. placement: unit -> rank, from 0 on without gaps (methods.sideways.plan.place_units); None gives
    each unit its own. batched: messages leave together at a step's end, as NCCL needs it; else each as soon as it is made,
    as over gloo. Where clips stream the times are those of a late clip, when the first ones have filled the units.
    Raises ValueError where times or placement are not those of the graph's units.
    """
    units = schedule.graph.units
    placement = {unit: number for number, unit in enumerate(units)} if placement is None else placement
    ranks = sorted(set(placement.values()))
    if set(times) != set(units) or set(placement) != set(units) or ranks != list(range(len(ranks))):
        raise ValueError(f"times of {sorted(times)} and placement {dict(placement)} are not those of units {list(units)}")
    clips_before = 0
    if schedule.streams:
        depth = schedule.graph.first_gradient(units[0]) + schedule.graph.longest(schedule.graph.top)
        clips_before = 2 + 2 * depth // schedule.frames
    simulation = _Simulation(schedule, times, placement, len(ranks), batched)
    for clip in range(clips_before):
        simulation.clip(clip)
    return simulation.clip(clips_before)


class _Message(NamedTuple):
    """From unit to unit of another rank; when it is made, and how long it is on its way."""

    kind: str
    source: str
    target: str
    made: float
    seconds: float


class _Simulation:
    """The ranks' clocks, clip after clip."""

    def __init__(
        self, schedule: ClipSchedule, times: Mapping[str, UnitTimes], placement: Mapping[str, int], ranks: int, batched: bool
    ) -> None:
        self._schedule, self._times, self._placement, self._batched = schedule, times, placement, batched
        here = [[unit for unit in schedule.graph.units if placement[unit] == rank] for rank in range(ranks)]
        self._units = [schedule.graph.order_here(units) for units in here]
        self._clocks = [0.0] * ranks
        # Of the step before: when what a unit reads comes, and when all has come and left that a rank sends or gets.
        self._coming: dict[tuple[str, str], float] = {}
        self._settled = [0.0] * ranks
        self._boxes: list[Box] = []

    def clip(self, clips_before: int) -> SidewaysRun:
        """One more clip."""
        self._boxes = []
        begin, first = max(self._clocks), min(self._clocks)
        for step in range(1, self._schedule.steps + 1):
            self._step(step, clips_before)
        seconds = max(self._clocks) - begin
        busy = [0.0] * len(self._clocks)
        for box in self._boxes:
            if box.kind in ("forward", "backward"):
                busy[box.row] += box.end - box.start
        boxes = [box._replace(start=box.start - first, end=box.end - first) for box in self._boxes]
        return SidewaysRun(
            self._schedule.steps, seconds, tuple(busy), tuple(sorted(boxes, key=lambda box: (box.row, box.start, box.end)))
        )

    def _step(self, step: int, clips_before: int) -> None:
        begins = list(self._clocks)
        ends = list(begins)
        messages: list[_Message] = []
        for rank, units in enumerate(self._units):
            for unit in units:
                ends[rank] = self._compute(unit, step, clips_before, ends[rank], messages)
        for rank, end in enumerate(ends):
            ends[rank] = self._wait(rank, end, self._settled[rank])
        settled, self._coming = list(ends), {}
        for message in messages:
            source, target = self._placement[message.source], self._placement[message.target]
            # The receiver is ready for a step's messages from the step's begin on.
            start = max(ends[source], ends[target]) if self._batched else max(message.made, begins[target])
            arrival = start + message.seconds
            self._box(source, "send", start, arrival, str(step))
            read = (message.kind, message.target)
            self._coming[read] = max(arrival, self._coming.get(read, 0.0))
            for rank in (source, target):
                settled[rank] = max(settled[rank], arrival)
        if step == self._schedule.steps:  # between two clips nothing is on its way
            ends = [self._wait(rank, end, settled[rank]) for rank, end in enumerate(ends)]
        self._clocks, self._settled = ends, settled

    def _received(self, kind: str, unit: str, now: float) -> float:
        """When the unit, whose turn it is, has what it reads from other ranks; in a batch all comes together."""
        if (kind, unit) not in self._coming:
            return now
        rank = self._placement[unit]
        return self._wait(rank, now, self._settled[rank] if self._batched else self._coming[kind, unit])

    def _wait(self, rank: int, now: float, until: float) -> float:
        self._box(rank, "wait", now, until, "")
        return max(now, until)

    def _compute(
        self, unit: str, step: int, clips_before: int, now: float, messages: list[_Message]
    ) -> float:
        """The unit's work of a step from `now` on; gives its end, and adds what it sends to other ranks."""
        schedule, times, rank = self._schedule, self._times[unit], self._placement[unit]
        goes_forward = schedule.forwards(unit, step, clips_before)
        pulls_back = schedule.clips_ago(unit, step, clips_before) is not None
        label = str(step)
        if goes_forward:
            now = self._received("features", unit, now)
            self._box(rank, "forward", now, now + times.forward, label)
            now += times.forward
            messages += self._sent("features", unit, schedule.graph.children(unit), step, now, times.features_send)
        # The delayed mode pulls back at an older input, through which it goes forward once more; the top has none older.
        again = schedule.rule == "delayed" and unit != schedule.graph.top
        if again or (pulls_back and goes_forward):  # delayed units take cotangents in as they come
            now = self._received("cotangent", unit, now)
        if pulls_back and (goes_forward or again):
            if again:
                self._box(rank, "forward", now, now + times.forward, label)
                now += times.forward
            self._box(rank, "backward", now, now + times.backward, label)
            now += times.backward
            messages += self._sent("cotangent", unit, schedule.graph.parents(unit), step, now, times.cotangent_send)
        return now

    def _sent(
        self, kind: str, unit: str, others: tuple[str, ...], step: int, now: float, seconds: float
    ) -> list[_Message]:
        if not self._schedule.hands_on(step):
            return []
        home = self._placement[unit]
        return [_Message(kind, unit, other, now, seconds) for other in others if self._placement[other] != home]

    def _box(self, row: int, kind: str, start: float, end: float, label: str) -> None:
        if end > start:
            self._boxes.append(Box(row, kind, start, end, label))
