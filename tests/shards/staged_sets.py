"""Sets for staging tests (staging does not look into shards), nodes as processes of one host, and who opened which file."""

from __future__ import annotations

import ctypes
import hashlib
import multiprocessing
import os
import socket
import struct
import subprocess
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment, child_variables, without_launcher
from hpcvideo.distributed.process_group import joined
from hpcvideo.errors import HpcvideoError
from hpcvideo.shards.manifest import Manifest, ShardEntry, write_manifest
from hpcvideo.shards.staging.leaders import form_leaders
from hpcvideo.shards.staging.stage import Mode, Staging, StagingReport
from tests.conftest import hpcvideo_command

_IN_OPEN = 0x20


def write_set(folder: Path, sizes: list[int], seed: int = 0) -> list[Path]:
    """A manifest and shard files of random bytes; gives the files."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    entries, files = [], []
    for index, size in enumerate(sizes):
        content = generator.bytes(size)
        files.append(folder / f"shard-{index:05d}.h5")
        files[-1].write_bytes(content)
        entries.append(ShardEntry(files[-1].name, size, hashlib.sha256(content).hexdigest(), 1, 1))
    write_manifest(folder, Manifest(tuple(entries), ("a",), {}, (), "plan", "0"))
    return files


def start_nodes(nodes: int, *arguments: str | Path) -> list[subprocess.Popen[str]]:
    """`hpcvideo shards stage ARGUMENTS` as one process a node, told apart by the variables that torchrun sets."""
    port = _free_port()
    processes = []
    for node in range(nodes):
        variables = without_launcher(child_variables()) | {
            "TORCHELASTIC_RUN_ID": "test", "RANK": str(node), "WORLD_SIZE": str(nodes), "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": str(node), "GROUP_WORLD_SIZE": str(nodes), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "SLURMD_NODENAME": f"n{node}", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        processes.append(
            subprocess.Popen(
                hpcvideo_command("shards", "stage", *arguments), env=variables, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    return processes


def finish_nodes(processes: list[subprocess.Popen[str]], timeout: float = 120) -> list[tuple[int, str, str]]:
    """(exit code, output, errors) of each node."""
    answers = []
    for process in processes:
        output, errors = process.communicate(timeout=timeout)
        answers.append((process.returncode, output, errors))
    return answers


def fork_nodes(nodes: int, shared: Path, to: Path, mode: Mode = "broadcast") -> list[StagingReport | HpcvideoError]:
    """Stage to TO, {node} in it replaced, by forked processes: no need to import torch again. Report or failure of each."""
    context = multiprocessing.get_context("fork")
    port = _free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(nodes)]
    processes = [
        context.Process(target=_node, args=(node, nodes, port, shared, to, mode, pipes[node][1])) for node in range(nodes)
    ]
    for process in processes:
        process.start()
    answers = []
    for process, (receiving, _) in zip(processes, pipes, strict=True):
        assert receiving.poll(120), "a node does not end"
        answers.append(receiving.recv())
        process.join()
    return answers


def _node(node: int, nodes: int, port: int, shared: Path, to: Path, mode: Mode, answer: Connection) -> None:
    place = ProcessEnvironment("test", node, nodes, 0, 1, node, nodes, f"n{node}", "127.0.0.1", port, None)
    try:
        with joined(place, Device(torch.device("cpu"), "cpu", "gloo")):
            leaders = form_leaders(place)
            assert leaders is not None
            staging = Staging(shared, Path(str(to).replace("{node}", f"n{node}")), leaders, mode)
            staging.prepare()
            answer.send(staging.copy())
    except HpcvideoError as error:
        answer.send(error)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class OpenCounter:
    """Counts who opens what in a folder, by the kernel's own notifications. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._descriptor >= 0
        assert self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _IN_OPEN) >= 0

    def __enter__(self) -> OpenCounter:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def counts(self) -> Counter[str]:
        """How often each file was opened since the last call."""
        found: Counter[str] = Counter()
        while True:
            try:
                events = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                return found
            while events:
                _, _, _, length = struct.unpack_from("iIII", events)
                name = events[16 : 16 + length].rstrip(b"\0").decode()
                found[name] += bool(name)
                events = events[16 + length :]
