"""Sideways by its definition: one recursive function a quantity, every value looked up by (unit, step), no buffers at all.

    h_c^t = H_c(h_p^(t-1-age) for what c reads),  frames enter at their own step
    g_top^t = d loss_t / d h_top,                 g_p^t = sum over children c, in their order, of m_(c->p)^(t-1)
    (m_(c->p)^t, G_c^t) = vector-Jacobian product of H_c at the inputs of step t with g_c^t

Slow, and shares no code with the executor; the units' own functions H are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from hpcvideo.models.unit import Unit


class Reference:
    """units: in order, the last one is the top. frame: step -> frame. loss: (output of the top, step) -> scalar."""

    def __init__(
        self, units: dict[str, Unit], frame: Callable[[int], Tensor], loss: Callable[[Tensor, int], Tensor]
    ) -> None:
        self.units, self.frame, self.loss = units, frame, loss
        self.top = list(units)[-1]
        self.output, self.cotangent, self.product = cache(self._output), cache(self._cotangent), cache(self._product)

    def inputs(self, unit: str, step: int) -> list[Tensor]:
        return [
            self.frame(step) if inlet.source == "frames" else self.output(inlet.source, step - 1 - inlet.age)
            for inlet in self.units[unit].inlets
        ]

    def _output(self, unit: str, step: int) -> Tensor:
        with torch.no_grad():
            return self.units[unit](*self.inputs(unit, step))

    def _cotangent(self, unit: str, step: int) -> Tensor:
        if unit == self.top:
            out = self.output(unit, step).clone().requires_grad_()
            return torch.autograd.grad(self.loss(out, step), out)[0]
        total = None
        for child, made in self.units.items():
            if any(inlet.source == unit for inlet in made.inlets):
                message = self.product(child, step - 1)[0][unit]
                total = message if total is None else total + message
        assert total is not None
        return total

    def _product(self, unit: str, step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(message to each parent, gradient of each parameter)."""
        made = self.units[unit]
        leaves = [value.clone().requires_grad_() for value in self.inputs(unit, step)]
        parameters = dict(made.named_parameters())
        found = torch.autograd.grad(made(*leaves), [*leaves, *parameters.values()], self.cotangent(unit, step))
        messages: dict[str, Tensor] = {}
        for inlet, part in zip(made.inlets, found, strict=False):
            if inlet.source != "frames":
                messages[inlet.source] = messages[inlet.source] + part if inlet.source in messages else part
        return messages, dict(zip(parameters, found[len(leaves) :], strict=True))

    def gradient(self, unit: str, step: int) -> dict[str, Tensor]:
        return self.product(unit, step)[1]
