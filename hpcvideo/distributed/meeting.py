"""Where the ranks of a Slurm job meet, whatever holds the port that follows from the job's number.

Rank 0 keeps two ports: one of its own for the meeting itself, and the first free one of a row that all ranks know
(slurm_notation.ports_of_job), at which it tells whoever names this start of the job where the meeting is. The others ask
down the row until they are answered: a port that another program holds says nothing, or the wrong thing. No file is needed,
which a parallel file system might show to other nodes only after seconds. No torch here.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.distributed.slurm_notation import ports_of_job
from hpcvideo.errors import OperationFailed

_ANSWER_SECONDS = 3.0  # what a rank waits for another's answer; only a program that is not rank 0 lets it wait
_LONGEST_LINE = 200
_WORD = "hpcvideo"


@dataclass(frozen=True)
class Meeting:
    """What rank 0 holds: a socket that listens, and its port."""

    listener: socket.socket
    port: int


@contextmanager
def hold_meeting(place: ProcessEnvironment) -> Iterator[Meeting]:
    """Rank 0's part: within this block the other ranks are told where to meet.

    The listener is the caller's to use and to close. Raises OperationFailed where every port of the row is taken.
    """
    listener = _listen(0)
    meeting = Meeting(listener, listener.getsockname()[1])
    door = _first_free(place)
    closing = threading.Event()
    thread = threading.Thread(target=_answer, args=(door, place, meeting.port, closing), daemon=True)
    thread.start()
    try:
        yield meeting
    finally:
        closing.set()
        thread.join()
        door.close()


def find_meeting(place: ProcessEnvironment, timeout_seconds: float) -> int:
    """The other ranks' part: the port at place.master_address where rank 0 holds the meeting.

    Raises OperationFailed where nobody has answered in this time.
    """
    ports, deadline, pause = ports_of_job(place.master_port), time.monotonic() + timeout_seconds, 0.05
    while True:
        for port in ports:
            found = _ask(place, port)
            if found is not None:
                return found
        if time.monotonic() > deadline:
            raise OperationFailed(
                f"rank {place.rank} of {place.world_size} on {place.node_name}: rank 0 has not answered at "
                f"{place.master_address} on any of the ports {ports[0]}, {ports[1]}, ... within {timeout_seconds:g} s; "
                "does that name reach the first node, and is rank 0 alive?"
            )
        time.sleep(pause)
        pause = min(1.0, 2 * pause)


def _first_free(place: ProcessEnvironment) -> socket.socket:
    ports = ports_of_job(place.master_port)
    for port in ports:
        with suppress(OSError):
            return _listen(port)
    raise OperationFailed(
        f"rank 0 on {place.node_name}: all of the ports {', '.join(map(str, ports))} are taken; "
        "set HPCVIDEO_MASTER_PORT to a free one in the site's profile (environment)"
    )


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=4096)


def _answer(door: socket.socket, place: ProcessEnvironment, port: int, closing: threading.Event) -> None:
    """Tell whoever names this start of the job the meeting's port, until told to end."""
    question = _question(place)
    door.settimeout(0.1)
    while not closing.is_set():
        with suppress(OSError):  # one that asks badly, or is gone, keeps nobody else from asking
            asking, _ = door.accept()
            with asking:
                asking.settimeout(_ANSWER_SECONDS)
                if _read_line(asking) == question:
                    asking.sendall(f"{question} {port}\n".encode())


def _ask(place: ProcessEnvironment, port: int) -> int | None:
    question = _question(place)
    with suppress(OSError), socket.create_connection((place.master_address, port), timeout=_ANSWER_SECONDS) as line:
        line.sendall(f"{question}\n".encode())
        told, _, number = _read_line(line).rpartition(" ")
        if told == question and number.isdigit():
            return int(number)
    return None


def _question(place: ProcessEnvironment) -> str:
    return f"{_WORD} {place.attempt}"


def _read_line(line: socket.socket) -> str:
    """One line, or what came of it before the other side closed or went on for too long."""
    text = b""
    while b"\n" not in text and len(text) < _LONGEST_LINE:
        part = line.recv(_LONGEST_LINE)
        if not part:
            break
        text += part
    return text.partition(b"\n")[0].decode(errors="replace")
