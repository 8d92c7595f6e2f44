"""Data-parallel training on three hosts joined by real (shaped) links: the same numbers, and the bytes promised."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.distributed.environment import child_variables, without_launcher
from tests.methods.test_pipeline import TRAINING, end_to_end, equal_bits, facts, pipeline, run_cases
from tests.multihost import ROOT, local_hosts

pytestmark = pytest.mark.faults

BOTH: dict[str, Any] = {
    "data-parallel": end_to_end(3, steps=[0, 3], batch=18, options={"bucket_megabytes": 0.2}),
    "pipeline": pipeline(3, 1, steps=[0, 2], batch=12),
}
WIRES: dict[str, dict[str, str]] = {"fp32": {}, "bf16": {"wire": "bf16"}}
FEW, MANY = 1, 41
"""Steps. What the ranks say to each other at start, which differs from start to start, is spread over the difference."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases NAME on three hosts joined at 1 Gbit/s, and `NAME-here` on as many ranks of one host."""
    if reason := local_hosts.why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("hosts")
    cases = dict(BOTH)
    for wire, options in WIRES.items():
        for steps in (FEW, MANY):
            cases[f"{wire}-{steps}"] = end_to_end(3, steps=[0, steps], batch=9, options=options)
    listed = [{**TRAINING, **case, "out": str(folder / name)} for name, case in cases.items()]
    (folder / "hosts.json").write_text(json.dumps(listed))
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu", PYTHONPATH=str(ROOT)))
    with local_hosts.LocalHosts(3, local_hosts.Link()) as hosts:
        command = [sys.executable, "-m", "tests.multihost.host_ranks", folder / "hosts.json"]
        for process in hosts.start_ranks(command, variables):
            errors = process.communicate(timeout=300)[1]
            assert process.returncode == 0, errors[-3000:]
    run_cases(folder, {f"{name}-here": case for name, case in BOTH.items()})
    return folder


@pytest.mark.parametrize("name", list(BOTH))
def test_three_hosts_train_to_the_bits_of_three_ranks_on_one(trained: Path, name: str) -> None:
    assert equal_bits(trained, name, f"{name}-here")
    for ours, here in zip(facts(trained, name), facts(trained, f"{name}-here"), strict=True):
        assert (ours["losses"], ours["norms"]) == (here["losses"], here["norms"])
        assert ours["reductions"] == here["reductions"]


def test_a_host_sends_what_a_ring_sends_and_half_of_it_in_16_bits(trained: Path) -> None:
    """2 (n - 1) / n of the bytes a step, counted at the network interface; packets' headers come on top.

    The wire's type is that of gradients; BatchNorm's statistics are averaged in fp32.
    """
    sums = {}
    for wire in WIRES:
        told = facts(trained, f"{wire}-{MANY}")[0]["facts"]
        promised = (told["gradient_bytes"] + told["statistics_bytes"]) * 2 * 2 / 3
        sent = [
            (count(trained, f"{wire}-{MANY}", host) - count(trained, f"{wire}-{FEW}", host)) / (MANY - FEW)
            for host in range(3)
        ]
        assert all(0.98 * promised < bytes_a_step < 1.1 * promised for bytes_a_step in sent), (wire, promised, sent)
        sums[wire] = sum(sent)
    assert sums["bf16"] / sums["fp32"] == pytest.approx(0.5, abs=0.03)


def count(folder: Path, name: str, host: int) -> int:
    """Bytes that a host sent in a case."""
    return int((folder / f"{name}.sent.{host}").read_text())
