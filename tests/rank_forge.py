"""A process that has imported what `hpcvideo train` needs and forks ranks from it: a launch then waits for no imports.

    python -m tests.rank_forge      requests on standard input, answers on standard output, a JSON object a line

Ranks get the variables that torchrun would give, or none where there is one. As under mpiexec, the first rank that fails
ends the others, and its code is the answer's. What starts a rank for real (mpiexec, torchrun, srun) is tested elsewhere.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from tests.forked_ranks import free_port, rank_variables

ROOT = Path(__file__).resolve().parents[1]
_IMPORTED = tuple(
    f"hpcvideo.{name}" for name in ("cli.main", "training.train", "training.evaluate_run", "methods.pipeline.method")
)


class RankForge:
    """The asking side."""

    def __init__(self) -> None:
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.rank_forge"], env=variables, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(
        self, arguments: list[str], ranks: int, variables: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """`hpcvideo ARGUMENTS` on so many ranks, in this process's folder. Raises TimeoutExpired."""
        assert self._server.stdin is not None and self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            out, errors = Path(folder, "out"), Path(folder, "errors")
            request = {
                "arguments": arguments, "ranks": ranks, "variables": variables, "timeout": timeout,
                "folder": str(Path.cwd()), "out": str(out), "errors": str(errors),
            }  # fmt: skip
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            code = json.loads(self._server.stdout.readline())["code"]
            told, said = out.read_text(), errors.read_text()
        if code is None:
            raise subprocess.TimeoutExpired(arguments, timeout, told, said)
        return subprocess.CompletedProcess(arguments, code, told, said)

    def close(self) -> None:
        """End the process."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is no answer
    for name in _IMPORTED:
        importlib.import_module(name)
    # Data workers that are spawned import the main module anew; this is the one they have under the command.
    sys.modules["__main__"] = importlib.import_module("hpcvideo.__main__")
    for line in sys.stdin:
        code = _launch(json.loads(line))
        answers.write(json.dumps({"code": code}) + "\n")
        answers.flush()


def _launch(request: dict[str, Any]) -> int | None:
    """The first code other than 0, else 0; None where the time is over."""
    for name in ("out", "errors"):
        Path(request[name]).touch()
    port = free_port()
    ranks = {}
    for rank in range(request["ranks"]):
        pid = os.fork()
        if pid == 0:
            _become(request, rank, port)
        ranks[pid] = rank
    deadline = time.monotonic() + request["timeout"]
    first: int | None = None
    while ranks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            if time.monotonic() > deadline:
                _end(list(ranks))
                return None
            time.sleep(0.005)
        elif pid in ranks:
            del ranks[pid]
            code = os.waitstatus_to_exitcode(status)
            if code != 0 and first is None:
                first = code
                _end(list(ranks))
    return first or 0


def _end(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _become(request: dict[str, Any], rank: int, port: int) -> None:
    """Be a rank, and never return."""
    code: Any = 1
    try:
        for number, path in enumerate((os.devnull, request["out"], request["errors"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_APPEND), number)
        os.closerange(3, 1024)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(request["variables"])
        if request["ranks"] > 1:
            os.environ.update(rank_variables(rank, request["ranks"], port))
        os.chdir(request["folder"])
        main = sys.modules["__main__"]
        sys.argv = [str(main.__file__), *request["arguments"]]
        main.main()  # type: ignore[attr-defined]
        code = 0
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        traceback.print_exc()
    finally:
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
        threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter's own end does
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


if __name__ == "__main__":
    _serve()
