"""Ranks find rank 0 although other programs, and other jobs, hold the ports that follow from the job's number."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hpcvideo.distributed.environment import ProcessEnvironment, child_variables, discover, without_launcher
from hpcvideo.distributed.meeting import find_meeting, hold_meeting
from hpcvideo.distributed.slurm_notation import ports_of_job
from hpcvideo.errors import OperationFailed


def place(rank: int, first_port: int, attempt: str = "4711.0.0") -> ProcessEnvironment:
    return ProcessEnvironment(
        "slurm", rank, 3, rank, 3, 0, 1, "n1", "127.0.0.1", first_port, attempt.partition(".")[0], attempt
    )


@contextmanager
def taken(port: int, words: bytes | None = None) -> Iterator[socket.socket]:
    """A port that another program holds; it takes connections and says nothing, or its own words."""
    with socket.create_server(("", port)) as server:
        if words is not None:

            def serve() -> None:
                while True:
                    try:
                        connection, _ = server.accept()
                    except OSError:
                        return
                    with connection:
                        connection.sendall(words)

            threading.Thread(target=serve, daemon=True).start()
        yield server
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def first_port() -> int:
    """A job's port, of whose row the first four are free now."""
    for first in range(23000, 29000, 7):
        try:
            with ExitStack() as stack:
                for port in ports_of_job(first)[:4]:
                    stack.enter_context(socket.create_server(("", port)))
            return first
        except OSError:
            continue
    raise AssertionError("no free ports")


def test_all_meet_at_a_port_of_rank_0_s_own(first_port: int) -> None:
    with hold_meeting(place(0, first_port)) as held:
        assert held.port == held.listener.getsockname()[1] != first_port
        assert [find_meeting(place(rank, first_port), 10) for rank in (1, 2, 1)] == [held.port] * 3
        held.listener.close()


def test_ports_that_others_hold_are_passed_over(first_port: int) -> None:
    row = ports_of_job(first_port)
    with taken(row[0]), taken(row[1], b"SSH-2.0-OpenSSH_9.2\r\n"), hold_meeting(place(0, first_port)) as held:
        assert find_meeting(place(1, first_port), 20) == held.port
        held.listener.close()


def test_another_job_s_rank_0_and_an_earlier_start_s_are_not_taken_for_ours(first_port: int) -> None:
    row = ports_of_job(first_port)
    other, earlier = place(0, row[0], "14711.0.0"), place(0, row[1], "4711.0.0")
    ours = [place(rank, first_port, "4711.0.1") for rank in range(2)]
    with hold_meeting(other) as theirs, hold_meeting(earlier) as before, hold_meeting(ours[0]) as held:
        assert find_meeting(ours[1], 10) == held.port
        assert find_meeting(replace(other, rank=1), 10) == theirs.port
        for meeting in (theirs, before, held):
            meeting.listener.close()


def test_who_comes_first_waits_for_rank_0(first_port: int) -> None:
    found: list[int] = []
    early = threading.Thread(target=lambda: found.append(find_meeting(place(1, first_port), 30)))
    early.start()
    early.join(0.5)
    assert early.is_alive() and not found
    with hold_meeting(place(0, first_port)) as held:
        early.join(20)
        assert found == [held.port]
        held.listener.close()


def test_without_rank_0_and_without_a_free_port_it_is_said_what_is_wrong(first_port: int) -> None:
    with pytest.raises(OperationFailed, match=rf"rank 0 has not answered at 127.0.0.1 on any of the ports {first_port}"):
        find_meeting(place(1, first_port), 0.2)
    with ExitStack() as stack:
        for port in ports_of_job(first_port):
            try:
                stack.enter_context(socket.create_server(("", port)))
            except OSError:
                continue  # somebody holds it already
        with pytest.raises(OperationFailed, match="are taken; set HPCVIDEO_MASTER_PORT"), hold_meeting(place(0, first_port)):
            pass


JOIN = """
import json, sys, torch
from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import gather_text, joined, total
here = discover()
with joined(here) as device:
    summed = total(torch.tensor([float(here.rank)]), device)
    texts = gather_text(f"rank {here.rank}")
    open(f"{sys.argv[1]}/{here.rank}.json", "w").write(json.dumps([summed.item(), texts]))
"""


def test_three_ranks_of_a_step_train_together_although_their_port_is_taken(tmp_path: Path, first_port: int) -> None:
    job = str(40000 + first_port - 20000)
    step = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": "0", "SLURM_NTASKS": "3", "SLURM_NNODES": "1", "HPCVIDEO_DEVICE": "cpu"}
    assert discover({**step, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).master_port == first_port
    program = tmp_path / "join.py"
    program.write_text(JOIN)
    variables = {**without_launcher(child_variables(OMP_NUM_THREADS="1")), **step}
    variables.pop("HPCVIDEO_MASTER_PORT", None)
    with taken(first_port):
        ranks = [
            subprocess.Popen(
                [sys.executable, str(program), str(tmp_path)], stderr=subprocess.PIPE, text=True,
                env={**variables, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            )
            for rank in range(3)
        ]  # fmt: skip
        errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0], errors
    answers = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert answers == [[3.0, ["rank 0", "rank 1", "rank 2"]]] * 3
