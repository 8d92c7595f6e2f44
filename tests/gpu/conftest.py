"""The self-test of a GPU cluster. Where there is no GPU, the CPU twin of each test runs, and the summary says so."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcvideo.distributed.device import Device, choose_device
from hpcvideo.distributed.environment import child_variables, discover, without_launcher

CHECKOUT = Path(__file__).resolve().parents[2]

Told = Callable[[str], None]
RunRanks = Callable[[str], tuple[str, list[dict[str, Any]]]]


@pytest.fixture
def told(record_property: Callable[[str, object], None]) -> Told:
    """Says a line in pytest's summary, once: without it a green run on a CPU would be taken for one on GPUs."""
    node = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    return lambda line: record_property("GPU self-test", f"{node}: {line}")


@pytest.fixture
def device(told: Told) -> Device:
    """The first GPU, computing in full fp32; without one the CPU."""
    found = choose_device(discover({}))
    if found.torch_device.type == "cuda":
        # TF32 rounds to 10 bits, which would hide what these tests look for.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        told(f"computed on {found.describe()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    else:
        told("no GPU here: the CPU twin of each test ran (fp32 against fp64, gloo in place of NCCL)")
    return found


@pytest.fixture
def run_ranks(told: Told) -> RunRanks:
    """Run tests/gpu/gpu_ranks.py in one process a GPU (2 to 8), or in two on the CPU; (kind of device, answers by rank)."""

    def run(what: str) -> tuple[str, list[dict[str, Any]]]:
        gpus = torch.cuda.device_count()
        kind, count = ("cuda", min(gpus, 8)) if gpus > 1 else ("cpu", 2)
        if kind == "cpu":
            told(f"{gpus} GPU here, 2 are needed: {what} ran between two processes on the CPU (gloo in place of NCCL)")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        processes = []
        for rank in range(count):
            variables = without_launcher(child_variables(OMP_NUM_THREADS="1", HPCVIDEO_DEVICE=kind)) | {
                "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            }  # fmt: skip
            command = [sys.executable, "-m", "tests.gpu.gpu_ranks", what]
            processes.append(
                subprocess.Popen(
                    command, env=variables, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
            )
        try:
            outputs = [process.communicate(timeout=300) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert not any(process.returncode for process in processes), "\n".join(errors for _, errors in outputs)
        return kind, [json.loads(output.splitlines()[-1]) for output, _ in outputs]

    return run

