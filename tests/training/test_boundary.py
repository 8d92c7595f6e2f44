"""Between two steps: what one rank knows all ranks hear of, at the same step, and nothing is saved unjudged."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

from hpcvideo.distributed.environment import child_variables, without_launcher
from hpcvideo.training.boundary import NUMBERS


def test_two_ranks_hear_the_same_at_the_same_step() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    program = Path(__file__).with_name("boundary_ranks.py")
    root = str(program.parents[2])
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1", PYTHONPATH=root))
    commands = [[sys.executable, str(program), str(rank), str(port)] for rank in range(2)]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) for command in commands]
    first, second = (json.loads(rank.communicate(timeout=240)[0]) for rank in ranks)
    assert first == second
    sums = [[1, [3.0] * NUMBERS], [2, [20.0] * NUMBERS]]
    assert first["told"] == [[], sums, []]
    assert first["answers"] == [
        "go on", "go on", "go on", "bad 5: the loss is nan",
        "bad 7: the loss is inf", "bad 8: the gradient norm is nan and the loss 2.0", "go on",
        "go on", "bad 11: the loss is nan", "go on", "stop: TERM",
    ]  # fmt: skip
