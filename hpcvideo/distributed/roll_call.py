"""Messages among ranks of which some may never come: through a store at rank 0, and never without a deadline.

A collective would wait for the rank that does not come until its time-out, and then tell nobody which one it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import timedelta

import torch.distributed as dist

from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.distributed.meeting import find_meeting, hold_meeting
from hpcvideo.errors import OperationFailed

_ASK_AGAIN_SECONDS = 0.05
_SLOWEST_ASK_SECONDS = 1.0


class RollCall:
    """The store of one job's ranks. Rank 0 holds it, so it must be the last to leave."""

    def __init__(self, place: ProcessEnvironment, patience_seconds: float) -> None:
        """Raises OperationFailed where rank 0 is not reached within the time, or finds no free port."""
        self.rank = place.rank
        self._place, self._patience = place, patience_seconds
        self._doors = ExitStack()
        if place.rank == 0:
            # Those who come late still ask at the door; it stays open as long as this object.
            meeting = self._doors.enter_context(hold_meeting(place))
            self._port = meeting.port
            self._store = self._connect(meeting.listener.detach())
        else:
            self._port = find_meeting(place, patience_seconds)
            self._store = self._connect()

    def __enter__(self) -> RollCall:
        return self

    def __exit__(self, *_: object) -> None:
        self._doors.close()

    def connection(self) -> dist.TCPStore:
        """Another connection to the store, for work that may block it. Raises OperationFailed as above."""
        return self._connect()

    def _connect(self, listener: int | None = None) -> dist.TCPStore:
        address = self._place.master_address
        try:
            return dist.TCPStore(
                address,
                self._port,
                is_master=listener is not None,
                timeout=timedelta(seconds=self._patience),
                wait_for_workers=False,
                master_listen_fd=listener,
            )
        except (RuntimeError, ValueError) as error:
            raise OperationFailed(
                f"{self._place.node_name}: rank {self.rank} cannot reach rank 0 at {address}:{self._port} within "
                f"{self._patience:g} s: {str(error).splitlines()[0]}"
            ) from error

    def tell(self, topic: str, text: str) -> None:
        """Say something under a topic, as this rank. Raises RuntimeError where rank 0 has gone."""
        self._store.set(f"{topic}/{self.rank}", text)

    def collect(self, topic: str, ranks: Iterable[int], seconds: float) -> dict[int, str]:
        """{rank: what it told} of those that have told it within the time."""
        missing, found = set(ranks), dict[int, str]()
        deadline, pause = time.monotonic() + seconds, _ASK_AGAIN_SECONDS
        while missing:
            for rank in sorted(missing):
                if self._store.check([f"{topic}/{rank}"]):
                    found[rank] = self._store.get(f"{topic}/{rank}").decode()
            missing -= found.keys()
            left = deadline - time.monotonic()
            if not missing or left <= 0:
                break
            time.sleep(min(pause, max(left, 0.01)))
            pause = min(2 * pause, _SLOWEST_ASK_SECONDS)
        return found

    def announce(self, topic: str, text: str) -> None:
        """Tell all ranks (as rank 0)."""
        self._store.set(topic, text)

    def hear(self, topic: str, seconds: float) -> str:
        """What rank 0 announces. Raises OperationFailed where it does not come within the time."""
        try:
            self._store.wait([topic], timedelta(seconds=seconds))
            return self._store.get(topic).decode()
        except RuntimeError as error:
            raise OperationFailed(
                f"{self._place.node_name}: rank {self.rank} heard nothing from rank 0 for {seconds:g} s ({topic})"
            ) from error
