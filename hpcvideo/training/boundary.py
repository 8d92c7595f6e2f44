"""What happens between two steps: ranks agree on stopping and saving, and on whether the loss is sound."""

from __future__ import annotations

import math

from hpcvideo.distributed.step_exchange import StepExchange
from hpcvideo.errors import OperationFailed
from hpcvideo.training.bad_loss import BadLoss
from hpcvideo.training.stopping import LOST, WISHES, StopAsked, Wishes, heaviest

NUMBERS = WISHES + 2
"""Of a StepExchange for a Boundary: the wishes, the loss, and whether there is one."""


class BadStep(Exception):
    """All ranks know that the loss of `step` was bad, and raise this at the same moment."""

    def __init__(self, step: int, fault: str) -> None:
        super().__init__(fault)
        self.step, self.fault = step, fault


class Boundary:
    """Every rank calls `meet` after every step, and `look` as often as the others do where there are no steps."""

    def __init__(self, exchange: StepExchange, wishes: Wishes, bad_loss: BadLoss) -> None:
        self._exchange, self._wishes, self.bad_loss = exchange, wishes, bad_loss

    def look(self, step: int, at_once: bool = False) -> None:
        """Raise StopAsked on all ranks where one is asked to stop; with at_once all know of what was asked by now, else of
        what was asked by the call before. Collective."""
        self.meet(step, None, 0.0, at_once)

    def meet(self, step: int, loss: float | None, gradient_norm: float, at_once: bool) -> bool:
        """Whether to save now, as somebody wants. Collective.

        loss: of this rank in `step`, None where the step made no update. gradient_norm: the same on all ranks. at_once: a
        checkpoint is due, which must hold no step that was not judged. Raises BadStep, StopAsked, and OperationFailed
        where another job has taken over.
        """
        at_once = at_once or not math.isfinite(gradient_norm)
        told = [*self._wishes.own(), 0.0 if loss is None else loss, float(loss is not None)]
        arrived = self._exchange.tell(step, told, at_once)
        sums = [sum(column) for column in zip(*(values[:WISHES] for _, values in arrived), strict=True)]
        cause, save_now = heaviest(sums), bool(sums and sums[-1] > 0)
        if cause == LOST:
            raise OperationFailed(
                "another job has taken this run directory over, or its .run-lock was deleted; only one can go on"
            )
        if cause or save_now:
            arrived += self._exchange.finish()
        for of_step, values in arrived:
            if values[-1] > 0:
                norm = gradient_norm if of_step == step else None
                if (fault := self.bad_loss.fault_of(values[-2] / values[-1], norm)) is not None:
                    raise BadStep(of_step, fault)
        if cause is not None:
            raise StopAsked(cause)
        return save_now

    def saved(self) -> None:
        """What somebody wanted is saved."""
        self._wishes.saved()

    def finish(self) -> None:
        """Let nothing be on its way any more. Collective."""
        self._exchange.finish()
