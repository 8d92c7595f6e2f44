"""The delayed mode's memory: inputs that wait for the cotangents of what was made of them, and cotangents that wait for the
last of their kind. It grows with the depth of the network, not with the length of a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hpcvideo.methods.sideways.graph import UnitGraph


class Waiting:
    """Of one unit that is not the top. Lags count steps back from the present one."""

    def __init__(self, graph: UnitGraph, unit: str) -> None:
        self._lag = graph.match_lag(unit)
        # A child pulls back `match_lag` steps after it read; what it read was made `delay` steps before that, and its
        # message took one step more.
        self._rows = {
            child: [
                1 + graph.match_lag(child) + inlet.delay for inlet in graph.inlets[child] if inlet.source == unit
            ]
            for child in graph.children(unit)
        }
        self._inputs: dict[int, tuple[list[Tensor], int]] = {}
        self._cotangents: dict[int, dict[tuple[str, int], Tensor]] = {}

    def keep(self, inputs: Sequence[Tensor], seed: int) -> None:
        """What the unit reads at the present step, and the key of its random draws."""
        self._inputs[0] = list(inputs), seed

    def add(self, child: str, message: Tensor) -> None:
        """A child's message, one row an inlet that reads this unit."""
        for row, (lag, cotangent) in enumerate(zip(self._rows[child], message, strict=True)):
            self._cotangents.setdefault(lag, {})[child, row] = cotangent

    def matching_inputs(self) -> tuple[list[Tensor], int]:
        """Inputs and key of the step whose cotangents are complete now."""
        return self._inputs[self._lag]

    def matching_cotangent(self) -> Tensor | None:
        """The sum of these cotangents, in the order of children and inlets; None where there are none."""
        parts = self._cotangents.get(self._lag, {})
        total = None
        for child, lags in self._rows.items():
            for row in range(len(lags)):
                if (child, row) in parts:
                    total = parts[child, row] if total is None else total + parts[child, row]
        return total

    def turn(self) -> None:
        """The step is over: all is one step older, and what has been matched goes."""
        self._inputs = {lag + 1: kept for lag, kept in self._inputs.items() if lag < self._lag}
        self._cotangents = {lag + 1: parts for lag, parts in self._cotangents.items() if lag < self._lag}

    def clear(self) -> None:
        """Forget everything."""
        self._inputs, self._cotangents = {}, {}

    @property
    def size(self) -> int:
        """Bytes of all that waits."""
        inputs = sum(tensor.nbytes for tensors, _ in self._inputs.values() for tensor in tensors)
        return inputs + sum(tensor.nbytes for parts in self._cotangents.values() for tensor in parts.values())

    def state(self) -> dict[str, Tensor]:
        """All that waits, by name; between two steps."""
        state = {}
        for lag, (tensors, seed) in self._inputs.items():
            state[f"seed/{lag}"] = torch.tensor(seed - 2**63)  # keys have 64 bits without a sign
            state |= {f"input/{lag}/{place}": tensor for place, tensor in enumerate(tensors)}
        for lag, parts in self._cotangents.items():
            state |= {f"cotangent/{lag}/{child}/{row}": tensor for (child, row), tensor in parts.items()}
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` gave."""
        self.clear()
        for name in state:
            kind, lag, *rest = name.split("/")
            if kind == "seed":
                count = sum(other.startswith(f"input/{lag}/") for other in state)
                tensors = [state[f"input/{lag}/{place}"] for place in range(count)]
                self._inputs[int(lag)] = tensors, int(state[name]) + 2**63
            elif kind == "cotangent":
                self._cotangents.setdefault(int(lag), {})[rest[0], int(rest[1])] = state[name]
