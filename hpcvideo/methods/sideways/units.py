"""One unit at work: its forward pass, one vector-Jacobian product, and an optimizer of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from hpcvideo.errors import InputError
from hpcvideo.methods.gradient_norm import scale_gradients
from hpcvideo.models.unit import Unit
from hpcvideo.models.unit_skips import FRAMES

_HALF = (torch.bfloat16, torch.float16)


class UnitWorker:
    """A unit with what it learns from. Its trajectory depends on the messages it gets alone: no norm or rate of others.

    optimizer: None where nothing of the unit is trained, or nothing is to be. largest_norm: its gradient is clipped to it;
    infinity does not clip. computing: the context of its forward, for autocast; messages are never in 16 bits.
    """

    def __init__(
        self, name: str, unit: Unit, optimizer: Optimizer | None = None, largest_norm: float = float("inf"),
        computing: AbstractContextManager[Any] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.unit, self.optimizer = name, unit, optimizer
        self.parameters = {key: value for key, value in unit.named_parameters() if value.requires_grad}
        self.gradients: dict[str, Tensor] = {}
        """The sum of the pseudo-gradients since the last update, by parameter; empty where there are none."""
        self.count = 0
        """How many these are."""
        self.norm = torch.zeros(())
        """Of the averaged gradient of the last update, before it was clipped."""
        self._largest_norm, self._computing = largest_norm, computing or nullcontext()

    def forward(
        self, inputs: Sequence[Tensor], seed: int | None, differentiable: bool, again: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        """(the inputs as leaves, the output). seed: of the random draws, None without. differentiable: whether `pull_back`
        will follow. again: for these inputs it was computed before, so running statistics are not updated."""
        leaves = [
            given.detach().requires_grad_(differentiable and inlet.source != FRAMES)
            for inlet, given in zip(self.unit.inlets, inputs, strict=True)
        ]
        if seed is not None and self.unit.draws:
            torch.manual_seed(seed)
        kept = _statistics_kept(self.unit) if again else nullcontext()
        with torch.set_grad_enabled(differentiable), self._computing, kept:
            out: Tensor = self.unit(*leaves)
        return leaves, out.float() if out.dtype in _HALF else out

    def pull_back(
        self, out: Tensor, leaves: Sequence[Tensor], cotangent: Tensor | None, counts: bool = True
    ) -> list[Tensor | None]:
        """One vector-Jacobian product: adds to `gradients`, where it counts, and gives the cotangent of each input, None of
        frames.

        out: the unit's output, or with cotangent None a scalar loss of it.
        """
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        trained = list(self.parameters) if counts else []
        targets = [*wanted, *(self.parameters[name] for name in trained)]
        if not targets:
            return [None] * len(leaves)
        found = torch.autograd.grad(out, targets, cotangent, allow_unused=True)
        for name, gradient in zip(trained, found[len(wanted) :], strict=True):
            if name not in self.gradients:
                # A copy: what autograd gives may be the message itself, or one tensor for two parameters.
                self.gradients[name] = torch.zeros_like(self.parameters[name]) if gradient is None else gradient.clone()
            elif gradient is not None:
                self.gradients[name] += gradient
        self.count += counts
        pulled = iter(found[: len(wanted)])
        cotangents: list[Tensor | None] = []
        for leaf in leaves:
            given = next(pulled) if leaf.requires_grad else None
            cotangents.append(torch.zeros_like(leaf) if leaf.requires_grad and given is None else given)
        return cotangents

    def average_gradients(self, divisor: float, over_replicas: Callable[[list[Tensor]], None]) -> None:
        """Make the sum a mean: divide it, and average it over the replicas of this unit. Collective among these."""
        gradients = list(self.gradients.values())
        if gradients:
            torch._foreach_div_(gradients, divisor)
            over_replicas(gradients)

    def update(self) -> None:
        """One step of the optimizer with the gradients as they are, clipped; then there are none."""
        gradients, self.gradients, self.count = self.gradients, {}, 0
        if self.optimizer is None or not gradients:
            return
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name]
        self.norm = torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients.values()]))
        if self._largest_norm < float("inf"):  # reads the norm, for which a GPU would have to be waited
            scale_gradients(self.parameters.values(), float(self.norm), self._largest_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def forget(self) -> None:
        """Drop the gradients since the last update."""
        self.gradients, self.count = {}, 0

    def state(self) -> dict[str, Tensor]:
        """The gradients since the last update, by name; empty where there are none."""
        if not self.count:
            return {}
        return {"count": torch.tensor(self.count), **{f"gradient/{name}": sum_ for name, sum_ in self.gradients.items()}}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` gave. Raises InputError where it is not of these parameters."""
        self.forget()
        if not state:
            return
        self.count = int(state["count"])
        for name, parameter in self.parameters.items():
            stored = state.get(f"gradient/{name}")
            if stored is None or stored.shape != parameter.shape:
                raise InputError(
                    f"the checkpoint's gradients under way do not fit unit {self.name} ({name}); use the run's own config"
                )
            self.gradients[name] = stored.to(parameter.device, copy=True)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let BatchNorms in this block add to copies of their running statistics.

    Copies, since autograd holds those that a forward saw, and nobody may write to them before the backward.
    """
    norms = [one for one in module.modules() if isinstance(one, _BatchNorm) and one.training]
    own = [(one, name, buffer) for one in norms for name, buffer in one.named_buffers()]
    for norm, name, buffer in own:
        setattr(norm, name, buffer.clone())
    yield
    for norm, name, buffer in own:
        setattr(norm, name, buffer)
