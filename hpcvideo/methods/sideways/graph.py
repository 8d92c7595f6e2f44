"""Units and the connections between them as a graph with delays; pure functions of it, no tensors.

Frame t enters at step t. A unit reads what its sources gave one step before (with age n: n steps before that), and hands
the gradient down in the same way, one step a connection. Notation: arXiv 2001.06232 and 2106.08318.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hpcvideo.models.unit import Inlet
from hpcvideo.models.unit_skips import FRAMES


@dataclass(frozen=True)
class UnitGraph:
    """inlets: by unit, each unit after those that it reads; the last one is the top, where the loss is.

    Raises ValueError where a unit reads what is not before it, reads no source at all, or leads nowhere.
    """

    inlets: Mapping[str, Sequence[Inlet]]

    def __post_init__(self) -> None:
        seen = {FRAMES}
        for unit, inlets in self.inlets.items():
            if not inlets or any(inlet.source not in seen for inlet in inlets):
                raise ValueError(f"unit {unit} reads nothing, or something that is not before it")
            seen.add(unit)
        for unit in self.units[:-1]:
            if not self.children(unit):
                raise ValueError(f"unit {unit} leads nowhere: only the last unit is the top")

    @cached_property
    def units(self) -> tuple[str, ...]:
        """The units in the order of computation."""
        return tuple(self.inlets)

    @property
    def top(self) -> str:
        """The unit whose output the loss is of."""
        return self.units[-1]

    def parents(self, unit: str) -> tuple[str, ...]:
        """The units that it reads, each once, without FRAMES."""
        return tuple(dict.fromkeys(inlet.source for inlet in self.inlets[unit] if inlet.source != FRAMES))

    def children(self, unit: str) -> tuple[str, ...]:
        """The units that read it, in their order: the order in which their cotangents are added up."""
        return tuple(name for name, inlets in self.inlets.items() if any(inlet.source == unit for inlet in inlets))

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(producer, consumer) of every connection between two units, sorted; each carries a message either way a step."""
        return tuple((producer, consumer) for consumer in self.units for producer in self.parents(consumer))

    def order_here(self, here: Container[str]) -> list[str]:
        """The units of one rank in the order in which it computes them: units do not wait for each other within a step, so
        first those that exchange with other ranks, whose messages then travel beside the rest of the step."""
        own = [unit for unit in self.units if unit in here]
        abroad = {unit for pair in self.pairs if (pair[0] in here) != (pair[1] in here) for unit in pair}
        return sorted(own, key=lambda unit: unit not in abroad)

    @cached_property
    def has_skips(self) -> bool:
        """Whether frames of different times meet in a unit."""
        return any(len(self.path_lengths(unit)) > 1 for unit in self.units)

    def path_lengths(self, unit: str) -> frozenset[int]:
        """Numbers of steps, both ends counted, after which a frame reaches the unit's output: with length l the output of
        step t holds frame t - l + 1. On a graph without ages these are the numbers of units on the ways to it."""
        return self._lengths[unit]

    @cached_property
    def _lengths(self) -> dict[str, frozenset[int]]:
        lengths = {FRAMES: frozenset({1})}
        for unit, inlets in self.inlets.items():
            lengths[unit] = frozenset(length + inlet.delay for inlet in inlets for length in lengths[inlet.source])
        return lengths

    def longest(self, unit: str) -> int:
        """Its longest path length: the first step at which it has all that it reads."""
        return max(self._lengths[unit])

    def shortest(self, unit: str) -> int:
        """Its shortest path length."""
        return min(self._lengths[unit])

    @property
    def receptive_frames(self) -> int:
        """Frames in a row from the oldest to the newest that one output of the top depends on."""
        return self.longest(self.top) - self.shortest(self.top) + 1

    def visible_frames(self, unit: str, step: int) -> list[int]:
        """The frames, 1-based, that the unit's output of a step depends on; none before the first one."""
        return sorted(step - length + 1 for length in self._lengths[unit] if step >= length)

    def descents(self, unit: str) -> dict[str, frozenset[int]]:
        """Every unit on a way from `unit` to the top, itself among them -> how many connections it is away, on each way.

        A cotangent takes so many steps to come down from there.
        """
        found: dict[str, set[int]] = {unit: {0}}
        for name in self.units[self.units.index(unit) + 1 :]:
            above = {steps + 1 for parent in self.parents(name) if parent in found for steps in found[parent]}
            if above:
                found[name] = above
        return {name: frozenset(steps) for name, steps in found.items()}

    def rises(self, unit: str) -> frozenset[int]:
        """Steps after which the unit's output is part of the top's, on each way; {0} of the top."""
        found: dict[str, set[int]] = {unit: {0}}
        for name in self.units[self.units.index(unit) + 1 :]:
            later = {
                steps + inlet.delay for inlet in self.inlets[name] for steps in found.get(inlet.source, ())
            }
            if later:
                found[name] = later
        return frozenset(found[self.top])

    def first_gradient(self, unit: str) -> int:
        """The first step at which the unit has a cotangent of every child: 2 D - i for unit i of a chain of D."""
        return self.longest(self.top) + max(self.descents(unit)[self.top])

    def newest_lag(self, unit: str) -> int:
        """Steps that the newest frame which the unit's pseudo-gradient of a step depends on lies behind that step."""
        return min(
            steps + self.shortest(name) - 1 for name, ways in self.descents(unit).items() for steps in ways
        )

    def match_lag(self, unit: str) -> int:
        """Steps until all cotangents of the unit's output of a step have come down: 2 (D - i) on a chain, 0 for the top.

        So many steps the delayed mode keeps a unit's inputs: it pulls cotangents back at the inputs that they belong to.
        """
        return self._match_lags[unit]

    @cached_property
    def _match_lags(self) -> dict[str, int]:
        lags = {self.top: 0}
        for unit in reversed(self.units[:-1]):
            lags[unit] = max(
                1 + inlet.delay + lags[child]
                for child in self.children(unit)
                for inlet in self.inlets[child]
                if inlet.source == unit
            )
        return lags
