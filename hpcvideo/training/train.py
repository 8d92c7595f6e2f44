"""Training as a command starts it: ranks join, one job takes the run directory, and the trainer goes to work."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import psutil

from hpcvideo.config import RunConfig
from hpcvideo.distributed.environment import ProcessEnvironment, script_started
from hpcvideo.distributed.process_group import TIMEOUT, barrier, gather, joined
from hpcvideo.distributed.step_exchange import StepExchange
from hpcvideo.errors import Stopped, StoppedForGood
from hpcvideo.runs import RunDirectory
from hpcvideo.runs.one_at_a_time import OneAtATime
from hpcvideo.training.bad_loss import BadLoss
from hpcvideo.training.boundary import NUMBERS, Boundary
from hpcvideo.training.checkpoint import has_checkpoint
from hpcvideo.training.recipe import RunPlan
from hpcvideo.training.run_lock import run_lock
from hpcvideo.training.run_log import Listener, LogEnd, RunLog, read_log_end
from hpcvideo.training.stop_signals import StopSignals
from hpcvideo.training.stopping import Wishes
from hpcvideo.training.trainer import Trainer
from hpcvideo.training.watchdog import STARTUP_FACTOR


def train(
    config: RunConfig, plan: RunPlan, run: Path, place: ProcessEnvironment, listener: Listener = lambda event: None,
    signals: StopSignals | None = None,
) -> None:  # fmt: skip
    """Train to the end of the recipe, from the run directory's last checkpoint where it has one. Collective.

    plan: what `check_run` gave for this config, world size and run directory. signals: those that a stop may come by, on any
    rank. Every rank calls this with the same arguments. Raises InputError or OperationFailed in one sentence, Taken where
    another job trains in the run directory, and on all ranks Stopped or StoppedForGood where one of them was asked to stop.
    """
    launched, began = time.time(), _start_of_all()
    limit = config.faults.watchdog_seconds
    # Longer than the watchdog's, which says more about a hang.
    timeout = TIMEOUT if limit is None else max(TIMEOUT, timedelta(seconds=STARTUP_FACTOR * limit + 120))
    with joined(place, timeout=timeout) as device:
        directory = RunDirectory(run)
        log = RunLog(directory, place.rank, listener)
        try:
            with run_lock(directory, place, lambda sentence: log.tell(event="warning", sentence=sentence)) as lock:
                # Only now: whoever held the lock may have finished the run. Rank 0 decides for all, since on a shared file
                # system the others may not see yet what was written last.
                before, seen = LogEnd(), [0.0, 0.0]
                if place.rank == 0:
                    before = read_log_end(directory)
                    seen = [float(before.finished_step == plan.total_steps), float(has_checkpoint(directory.checkpoints))]
                finished, resumes = gather(seen, device)[0].bool().tolist()
                if finished:
                    log.tell(event="end", step=plan.total_steps, reason="already finished", seconds=0.0)
                    return
                wishes = _wishes(config, directory, place, lock, signals, began)
                boundary = Boundary(StepExchange(NUMBERS, timeout), wishes, BadLoss(config.faults))
                startup = {"launch": launched - began, "join": time.time() - launched}
                training = Trainer(
                    config, plan, place, device, directory, log, lock, boundary, signals, began, startup, timeout
                )
                training.run(resumes, before.evaluated_steps)
        except (Stopped, StoppedForGood):
            barrier(device)  # one that leaves early may take the others along
            raise


def _wishes(
    config: RunConfig, directory: RunDirectory, place: ProcessEnvironment, lock: OneAtATime | None,
    signals: StopSignals | None, began: float,
) -> Wishes:  # fmt: skip
    if place.rank:
        return Wishes(signals)
    minutes = config.faults.exit_after_minutes
    return Wishes(signals, directory, lock, None if minutes is None else began + 60 * minutes)


def _start_of_all() -> float:
    """When the batch script began, or this process, by time.time."""
    return script_started() or psutil.Process().create_time()
