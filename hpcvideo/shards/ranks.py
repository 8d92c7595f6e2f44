"""The processes that build one set together: alone, or the ranks of an MPI world. The only file that imports mpi4py."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from hpcvideo.distributed.environment import mpi_launched, slurm_task_count
from hpcvideo.errors import HpcvideoError, InputError

_VALUE_TAG, _COUNT_TAG, _DECIDED_TAG, _STOP_TAG, _ALL_TAG, _LAST_TAG = range(6)
_POLL_SECONDS = 0.02
_TURN_SECONDS = 0.5  # a full disk fails many ranks at once: the lower rank tells first, and its abort silences the rest
_OUTPUT_SECONDS = 0.2  # for the launcher to pass on what was just printed: at an abort it drops what is still in its pipes
Value = TypeVar("Value")

INTERRUPTED = "interrupted; finished shards are kept, the same command goes on"
INTERRUPTED_EXIT_CODE = 130


class Ranks:
    """Rank and size of this process among the builders, and what they tell each other.

    `guard` is for the part in which ranks wait for each other: an error there on one rank is printed once and ends all of
    them at once, with that error's exit code.
    """

    def __init__(self, asked_to_stop: Callable[[], bool] = lambda: False) -> None:
        """Discover the ranks; collective under MPI. asked_to_stop: whether this process was, see `stopping`.

        Raises InputError where a launcher started several tasks that cannot see each other: each would build the whole
        set into the same folder.
        """
        self._world: Any = None
        self.rank, self.size = 0, 1
        if mpi_launched():
            from mpi4py import MPI

            self._world = MPI.COMM_WORLD
            self.rank, self.size = self._world.Get_rank(), self._world.Get_size()
        if self.size == 1 and (tasks := slurm_task_count()) > 1:
            raise InputError(
                f"srun started {tasks} tasks, but each sees an MPI world of one and would build the whole set; "
                "start them with `srun --mpi=pmi2` or `mpiexec`, or use one task"
            )
        self._sends: list[Any] = []
        self._asked_to_stop = asked_to_stop
        self._stopping = False
        self._told: set[int] = set()  # ranks that this one told to stop
        self._heard: set[int] = set()  # ranks that told this one

    def stopping(self) -> bool:
        """Whether any rank was asked to stop; to be called now and then on each, for that is how they hear of it."""
        if self._stopping:
            return True
        if self._world is not None and self._world.iprobe(tag=_STOP_TAG):
            self._hear_of_a_stop()
        elif not self._asked_to_stop():
            return False
        self._stopping = True
        # By way of rank 0: where the launcher tells all ranks, all of them telling all others would be a flood.
        self._told = set(range(1, self.size)) if self.rank == 0 else set() if self._heard else {0}
        self._sends += [self._world.isend(self.rank, dest=rank, tag=_STOP_TAG) for rank in self._told]
        return True

    def _hear_of_a_stop(self) -> None:
        self._heard.add(self._world.recv(tag=_STOP_TAG))

    def deal(self, parts: Sequence[Value] | None) -> Value:
        """To each rank its part of what rank 0 has, by rank; collective. parts: None elsewhere."""
        if self.size == 1 and parts is not None:
            return parts[0]
        return cast(Value, self._world.scatter(parts, root=0))

    def own_cores(self) -> int:
        """Cores that this process may use, shared evenly with the ranks of this host that may use them, too; collective."""
        cores = frozenset(os.sched_getaffinity(0))
        hosts = self.all_values((socket.gethostname(), cores))
        sharing = sum(host == socket.gethostname() and bool(cores & others) for host, others in hosts)
        return max(1, len(cores) // sharing)

    def agree(self, decide: Callable[[], Value]) -> Value:
        """What rank 0 decides, on every rank. Its HpcvideoError is raised there, and ends the others silently."""
        if self.size == 1:
            return decide()
        if self.rank:
            while not self._world.iprobe(source=0, tag=_DECIDED_TAG):
                time.sleep(_POLL_SECONDS)  # a blocking receive would spin and take a core from the ranks at work
            self._world.recv(source=0, tag=_DECIDED_TAG)
            value, exit_code = self._world.bcast(None, root=0)
            if exit_code is not None:
                raise SystemExit(exit_code)
            return cast(Value, value)
        try:
            value = decide()
        except HpcvideoError as error:
            self._tell((None, error.exit_code))
            raise
        except BaseException as defect:
            self._abort(defect)
            raise
        self._tell((value, None))
        return value

    def _tell(self, decision: tuple[Any, int | None]) -> None:
        for rank in range(1, self.size):
            self._world.send(None, dest=rank, tag=_DECIDED_TAG)
        self._world.bcast(decision, root=0)

    def count_one(self, count: Callable[[int], None]) -> None:
        """One more video is done here; on rank 0 `count(n)` is called with what is new over all ranks."""
        if self.rank:
            self._sends = [send for send in self._sends if not send.Test()]
            self._sends.append(self._world.isend(1, dest=0, tag=_COUNT_TAG))
            return
        count(1 + self._counts_received())

    def gather(self, value: Value, count: Callable[[int], None]) -> list[Value]:
        """Every rank's value, by rank, on rank 0 (elsewhere only its own); rank 0 counts on until all have come.

        Collective: all wait for the last one, and none is told to stop after that.
        """
        if self.size == 1:
            return [value]
        if self.rank:
            while not all(send.Test() for send in self._sends):
                time.sleep(_POLL_SECONDS)
            self._world.send(value, dest=0, tag=_VALUE_TAG)
            while not self._world.iprobe(source=0, tag=_ALL_TAG):
                self.stopping()
                time.sleep(_POLL_SECONDS)
            # MPICH may end a process badly that leaves a message unreceived.
            if self._world.recv(source=0, tag=_ALL_TAG) and not self._heard:
                self._hear_of_a_stop()
            self._world.send(bool(self._told), dest=0, tag=_LAST_TAG)
            return [value]
        gathered: dict[int, Value] = {0: value}
        while len(gathered) < self.size:
            count(self._counts_received())
            self.stopping()
            for rank in range(1, self.size):
                if rank not in gathered and self._world.iprobe(source=rank, tag=_VALUE_TAG):
                    gathered[rank] = self._world.recv(source=rank, tag=_VALUE_TAG)
            time.sleep(_POLL_SECONDS)
        count(self._counts_received())
        for rank in range(1, self.size):
            self._world.send(bool(self._told), dest=rank, tag=_ALL_TAG)
        stops = sum(self._world.recv(source=rank, tag=_LAST_TAG) for rank in range(1, self.size))
        while len(self._heard) < stops:
            self._hear_of_a_stop()
        return [gathered[rank] for rank in range(self.size)]

    def _counts_received(self) -> int:
        received = 0
        while self._world is not None and self._world.iprobe(tag=_COUNT_TAG):
            received += self._world.recv(tag=_COUNT_TAG)
        return received

    def all_values(self, value: Value) -> list[Value]:
        """Every rank's `value`, by rank, on every rank; collective."""
        return [value] if self.size == 1 else cast(list[Value], self._world.allgather(value))

    @contextmanager
    def guard(self, tidy: Callable[[], None]) -> Iterator[None]:
        """End all ranks where this one fails; `tidy` is called before that, for the others get no chance to."""
        try:
            yield
        except BaseException as error:
            if self.size > 1:
                self._abort(error, tidy)
            raise

    def _abort(self, error: BaseException, tidy: Callable[[], None] = lambda: None) -> None:
        """End all ranks: an uncaught error would leave the others waiting for this one for ever."""
        exit_code = error.exit_code if isinstance(error, HpcvideoError) else 1
        if isinstance(error, KeyboardInterrupt):  # the launcher hands it to all ranks
            exit_code = INTERRUPTED_EXIT_CODE
            if self.rank == 0:
                print(f"hpcvideo: {INTERRUPTED}", file=sys.stderr, flush=True)
        elif isinstance(error, HpcvideoError):
            time.sleep(_TURN_SECONDS * min(self.rank, 4))
            print(f"hpcvideo: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exception(error)
            sys.stderr.flush()
        tidy()
        time.sleep(_OUTPUT_SECONDS)
        self._world.Abort(exit_code)
        os._exit(exit_code)  # MPICH's Abort may return before the launcher ends this process
