"""Worlds of ranks on hosts that stay up and answer requests in turns: one world works while the others wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rank_processes import RanksFailed

from hpcvideo.distributed.environment import child_variables, without_launcher

if TYPE_CHECKING:
    from local_hosts.hosts import LocalHosts

ROOT = Path(__file__).resolve().parents[1]
_SCRIPT = Path(__file__).with_name("scaling_ranks.py")
_FIRST_PORT = 29_600


class World:
    """Ranks of one training, one on each of the first `hosts` hosts; see scaling_ranks.py. Use as a context manager.

    number: tells the worlds on the same hosts apart. Raises RanksFailed where a rank ends instead of answering.
    """

    def __init__(self, network: LocalHosts, hosts: int, facts: dict[str, Any], number: int) -> None:
        self.hosts = hosts
        self._folder = tempfile.TemporaryDirectory()
        told = Path(self._folder.name) / "facts.json"
        told.write_text(json.dumps(facts))
        self._errors = [tempfile.TemporaryFile("w+") for _ in range(hosts)]  # noqa: SIM115  (closed on exit)
        self._ranks: list[subprocess.Popen[str]] = []
        variables = without_launcher(child_variables(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu"))
        variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), variables.get("PYTHONPATH", "")])
        world = {"WORLD_SIZE": hosts, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": _FIRST_PORT + number}
        world |= {"MASTER_ADDR": network.addresses[0], "GLOO_SOCKET_IFNAME": "eth0"}
        for host in range(hosts):
            place = {key: str(value) for key, value in {**world, "RANK": host}.items()}
            self._ranks.append(
                network.start(
                    host, [sys.executable, _SCRIPT, told], {**variables, **place}, subprocess.PIPE, self._errors[host],
                    subprocess.PIPE,
                )
            )  # fmt: skip

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for rank in self._ranks:
            with suppress(OSError):
                if rank.stdin is not None:
                    rank.stdin.close()
        for rank in self._ranks:
            with suppress(subprocess.TimeoutExpired):
                rank.wait(timeout=5 if kind is None else 0)
            rank.kill()
            rank.wait()
        for errors in self._errors:
            errors.close()
        self._folder.cleanup()

    def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Every rank's answer, in order of ranks."""
        self.tell(request)
        return self.answers()

    def tell(self, request: dict[str, Any]) -> None:
        """Send all ranks a request; `answers` waits for what they say."""
        for host, rank in enumerate(self._ranks):
            assert rank.stdin is not None
            try:
                rank.stdin.write(json.dumps(request) + "\n")
                rank.stdin.flush()
            except OSError as error:
                raise RanksFailed(self._last_words(host)) from error

    def answers(self) -> list[dict[str, Any]]:
        """What the ranks answer to the last request."""
        return [self._answer(host, rank) for host, rank in enumerate(self._ranks)]

    def _answer(self, host: int, rank: subprocess.Popen[str]) -> dict[str, Any]:
        assert rank.stdout is not None
        line = rank.stdout.readline()
        if not line:
            raise RanksFailed(self._last_words(host))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self, host: int) -> str:
        self._errors[host].seek(0)
        return f"host {host}: {' '.join(self._errors[host].read().split())[-600:]}"


def slowest_steps(answers: Sequence[dict[str, Any]]) -> list[float]:
    """Seconds of each step: the slowest rank's."""
    return [max(row) for row in zip(*(answer["seconds"] for answer in answers), strict=True)]
