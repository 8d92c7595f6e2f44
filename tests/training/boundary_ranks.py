"""One of two ranks of test_boundary.py: what it hears at each of a few steps, as JSON. Arguments: rank, port."""

from __future__ import annotations

import json
import math
import sys
from datetime import timedelta

import torch.distributed as dist

from hpcvideo.config.faults import FaultsConfig
from hpcvideo.distributed.step_exchange import StepExchange
from hpcvideo.training.bad_loss import BadLoss
from hpcvideo.training.boundary import NUMBERS, BadStep, Boundary
from hpcvideo.training.stop_signals import StopSignals
from hpcvideo.training.stopping import StopAsked, Wishes


def heard(boundary: Boundary, step: int, loss: float | None, at_once: bool = False, norm: float = 1.0) -> str:
    try:
        return "save" if boundary.meet(step, loss, norm, at_once) else "go on"
    except BadStep as bad:
        return f"bad {bad.step}: {bad.fault}"
    except StopAsked as asked:
        return f"stop: {asked.cause}"


rank, port = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
signals = StopSignals()
exchange = StepExchange(NUMBERS, timedelta(seconds=60))
boundary = Boundary(exchange, Wishes(signals), BadLoss(FaultsConfig()))
told = [exchange.tell(1, [rank + 1.0] * NUMBERS), exchange.tell(2, [10.0] * NUMBERS, at_once=True), exchange.finish()]
answers = [heard(boundary, step, 1.0) for step in (3, 4)]
answers.append(heard(boundary, 5, math.nan if rank else 1.0))  # one rank's loss is not finite: all hear of it a step later
answers.append(heard(boundary, 6, 1.0))
answers.append(heard(boundary, 7, math.inf if rank else 1.0, at_once=True))  # before a checkpoint they hear of it at once
answers.append(heard(boundary, 8, 2.0, norm=math.nan))  # and so where the norm, which all share, is not finite
answers.append(heard(boundary, 9, None))
signals.received = "TERM" if rank else None
answers.append(heard(boundary, 10, 1.0))
answers.append(heard(boundary, 11, math.nan if rank else 1.0))  # a stop would save: this step is judged before it
answers += [heard(boundary, step, 1.0) for step in (12, 13)]
boundary.finish()
print(json.dumps({"told": told, "answers": answers}))
dist.destroy_process_group()
