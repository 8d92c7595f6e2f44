"""Ranks of a benchmark: started on this machine, waited for, and ended whatever happens."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn


class RanksFailed(Exception):
    """A rank ended without an answer; the text is the end of what it wrote."""


def start_here(command: Sequence[str], ranks: int, variables: Mapping[str, str]) -> list[subprocess.Popen[str]]:
    """So many ranks on this machine, told who they are as torchrun would; standard errors are pipes."""
    world = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
    world["MASTER_PORT"] = str(_free_port())
    return [
        subprocess.Popen(
            command, env={**variables, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for rank in range(ranks)
    ]  # fmt: skip


def fork_ranks(ranks: int, work: Callable[[int, int], None]) -> NoReturn:
    """`work(rank, port)` on so many ranks: this process is rank 0, copies of it are the others. They meet at the port.

    The process ends with it, and at once: after work between ranks, what torch's libraries clear away at a process's end now
    and then aborts it. An exception in rank 0's work is raised.
    """
    port = _free_port()
    for rank in range(1, ranks):
        if os.fork() == 0:
            try:
                work(rank, port)
            finally:
                os._exit(0)
    work(0, port)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answer_of(processes: Sequence[subprocess.Popen[str]], out: Path, patience_seconds: float) -> dict[str, Any]:
    """The JSON that the ranks leave in `out`. Raises RanksFailed where none is there, or not in time."""
    try:
        errors = [process.communicate(timeout=patience_seconds)[1] for process in processes]
    except subprocess.TimeoutExpired:
        raise RanksFailed(f"no answer within {patience_seconds:g} s") from None
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
    if not out.exists():
        raise RanksFailed(" ".join("".join(errors).split())[-600:])
    found: dict[str, Any] = json.loads(out.read_text())
    return found
