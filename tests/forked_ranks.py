"""Ranks forked from a process that has imported what they need: up at once, gone without an interpreter's end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping


def free_port() -> int:
    """A port of 127.0.0.1 that nobody holds at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def rank_variables(rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun tells a rank of one host."""
    world = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
    return {name: str(value) for name, value in world.items()} | {"MASTER_ADDR": "127.0.0.1"}


def fork(work: Callable[[], None], variables: Mapping[str, str]) -> int:
    """The pid of a child that takes these variables, does the work and leaves with 0, or with 1 and a traceback."""
    child = os.fork()
    if child == 0:
        os.environ.update(variables)
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def fork_ranks(ranks: int, work: Callable[[int], None], **variables: str) -> list[int]:
    """The pids of so many ranks of one job, each of which does `work(rank)`."""
    port = free_port()
    return [fork(lambda rank=rank: work(rank), rank_variables(rank, ranks, port) | variables) for rank in range(ranks)]


def wait_for_all(children: list[int]) -> list[int]:
    """The children's exit codes, in order; none is ended for another's failure."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def wait_for_success(children: list[int], what: str) -> None:
    """Raises RuntimeError where a child failed; the others are ended then."""
    failed = False
    while children:
        child, status = os.wait()
        children.remove(child)
        if status and not failed:
            failed = True
            for other in children:
                os.kill(other, signal.SIGKILL)
    if failed:
        raise RuntimeError(f"a rank of {what} failed")
