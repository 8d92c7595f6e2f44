"""Which unit does what at which step of a clip: a pure function of graph, clip length and rules, so that nothing of it is
ever sent.

Steps are 1-based and relative to the clip's begin; frame t enters at step t. Index sums: `first_gradient` is the step at
which the gradient of the clip's first output comes by, `newest_lag` tells when the last frame has left a unit. For unit i of
a chain of D units and K frames a unit's pseudo-gradients are wholly of this clip at steps 2 D - i to K + i - 1, which are
K - 2 (D - i).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hpcvideo.errors import InputError
from hpcvideo.methods.sideways.graph import UnitGraph

Rule = Literal["sideways", "delayed", "forward"]
"""sideways: a cotangent is pulled back at the input of the step in which it arrives. delayed: at the input that it belongs
to, which is kept until then. forward: no gradients at all, as in evaluation."""

Boundary = Literal["reset", "drain", "stream", "continuous"]
"""reset: a clip begins with empty messages. drain: as well, and its last frame is held until all its gradients have come
down. stream: clips follow one another without a gap; what would mix two of them is left out. continuous: as well, but they
are parts of one video, so nothing is: once the first frames have come through, every unit learns at every step."""


@dataclass(frozen=True)
class ClipSchedule:
    """frames: of a clip. Raises InputError where it is too short for any unit to learn, with the least that works."""

    graph: UnitGraph
    frames: int
    boundary: Boundary = "reset"
    rule: Rule = "sideways"

    def __post_init__(self) -> None:
        least = least_frames(self.graph, self.boundary, self.rule)
        if self.frames < least:
            raise InputError(
                f"model.frames = {self.frames} is too short for {len(self.graph.units)} units "
                f"({'gradients need' if self.rule != 'forward' else 'an output needs'} longer to come through"
                f"{', boundary ' + self.boundary if self.rule != 'forward' else ''}); use model.frames={least} or more"
            )

    @property
    def streams(self) -> bool:
        """Whether messages of one clip meet the next one."""
        return self.boundary in ("stream", "continuous") and self.rule != "forward"

    @cached_property
    def steps(self) -> int:
        """Steps a clip takes: `frames` where they stream; K + 2 D - 2 on a chain that is drained."""
        if self.rule == "forward":
            return self.output_steps.stop - 1
        if self.streams or (self.boundary, self.rule) == ("reset", "sideways"):
            return self.frames
        return max(self.gradient_steps(unit).stop for unit in self.graph.units) - 1

    @cached_property
    def output_steps(self) -> range:
        """The steps at which all that the top unit sees is of the clip, held frames apart."""
        return range(self.graph.longest(self.graph.top), self.frames + self.graph.shortest(self.graph.top))

    def frame(self, step: int) -> int:
        """The frame that enters at a step, 1-based: the last one is held."""
        return min(step, self.frames)

    def gradient_steps(self, unit: str) -> range:
        """The steps at which the unit pulls back a cotangent of this clip and nothing else; they may lie behind its end."""
        return self._gradient_steps[unit]

    @cached_property
    def _gradient_steps(self) -> dict[str, range]:
        return {unit: self._gradient_steps_of(unit) for unit in self.graph.units}

    def _gradient_steps_of(self, unit: str) -> range:
        graph = self.graph
        if self.rule == "forward":
            return range(0)
        if self.rule == "delayed":
            rises, lag = graph.rises(unit), graph.match_lag(unit)
            first = self.output_steps.start - max(rises) + lag
            if self.boundary == "continuous":  # as many as there are frames: the next clip's follow at once
                return range(first, first + self.frames)
            return range(first, self.output_steps.stop - min(rises) + lag)
        first = graph.first_gradient(unit)
        if self.boundary == "reset":
            return range(first, self.frames + 1)
        if self.boundary in ("drain", "continuous"):
            return range(first, first + self.frames)
        return range(first, self.frames + graph.newest_lag(unit) + 1)

    def pull_steps(self, unit: str) -> range:
        """The steps at which the unit pulls cotangents back for those below it. Only where a clip is drained these are more
        than `gradient_steps`: a short way down still waits for what a long one brings."""
        return self._pull_steps[unit]

    @cached_property
    def _pull_steps(self) -> dict[str, range]:
        spans: dict[str, range] = {}
        for unit in self.graph.units:
            own = self._gradient_steps[unit]
            below = [spans[parent].stop - 1 for parent in self.graph.parents(unit)] if self.boundary == "drain" else []
            spans[unit] = range(own.start, max([own.stop, *below]))
        return spans

    def forwards(self, unit: str, step: int, clips_before: int) -> bool:
        """Whether the unit computes its output at a step. clips_before: that came without a gap before this one."""
        if self.streams:
            return clips_before > 0 or step >= self.graph.longest(unit)
        if self.rule == "sideways":
            return self.graph.longest(unit) <= step <= self.steps
        # Delayed, and without gradients: as long as what the unit has seen are frames of the clip.
        return self.graph.longest(unit) <= step < self.frames + self.graph.shortest(unit)

    def clips_ago(self, unit: str, step: int, clips_before: int) -> int | None:
        """To which clip the cotangent belongs that the unit pulls back at a step: 0 this one, 1 the one before, ...; None
        where it does not."""
        steps = self._pull_steps[unit]
        before = min(clips_before, steps.stop // self.frames) if self.streams else 0
        for ago in range(before + 1):
            if step + ago * self.frames in steps:
                return ago
        return None

    def counts(self, unit: str, step: int, ago: int) -> bool:
        """Whether the unit learns from what it pulls back at a step."""
        return step + ago * self.frames in self._gradient_steps[unit]

    def gradient_number(self, unit: str, step: int, ago: int) -> tuple[int, int]:
        """(which of the unit's gradients of a clip that is, from 1 on; how many there are)."""
        steps = self._gradient_steps[unit]
        return step + ago * self.frames - steps.start + 1, len(steps)

    def hands_on(self, step: int) -> bool:
        """Whether somebody reads what is made at a step: not at the last one before messages are emptied."""
        return self.streams or step < self.steps


def least_frames(graph: UnitGraph, boundary: Boundary, rule: Rule) -> int:
    """Frames a clip must have so that every unit gets a gradient of its own clip: 2 D - 1 on a chain of D units; 1 where it
    is drained, or delayed without streaming; D where it is part of a continuous video or of a delayed stream, so that no
    output comes later than in the next part."""
    if rule == "forward" or (boundary, rule) == ("reset", "delayed") or boundary == "drain":
        return graph.receptive_frames
    if rule == "delayed" or boundary == "continuous":
        return max(graph.receptive_frames, graph.longest(graph.top))
    return max(graph.first_gradient(unit) for unit in graph.units)
