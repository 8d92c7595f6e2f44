"""benchmarks/data_parallel_step.py at tiny sizes: both sides do the same work, and what is exchanged; never how fast."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from tests.multihost import ROOT, local_hosts

pytestmark = pytest.mark.faults

sys.path.insert(0, str(ROOT / "benchmarks"))
data_parallel_step = importlib.import_module("data_parallel_step")
RESNET18_BATCH_NORM_CHANNELS = 64 + 4 * 64 + 5 * 128 + 5 * 256 + 5 * 512  # a mean and a variance each
TINY: dict[str, Any] = {"work": {"clips": 1, "frames": 4, "size": 32, "classes": 5}, "rounds": 1}


def check(found: dict[str, Any], ranks: int) -> None:
    """One reduction a bucket over every parameter once, one of BatchNorm statistics; seconds of all ranks by kind."""
    assert found["ranks"] == ranks and found["threads"] == 1
    *buckets, statistics = found["reductions"]
    assert len(buckets) == found["facts"]["gradient_buckets"] > 1
    assert sum(buckets) == found["parameters"] == found["facts"]["gradient_bytes"] / 4
    assert statistics == 2 * RESNET18_BATCH_NORM_CHANNELS == found["facts"]["statistics_bytes"] / 4
    assert set(found["seconds"]) == {"ours", "ours alone", "ddp", "ddp alone"}
    assert all(len(row) == ranks and min(row) > 0 for rows in found["seconds"].values() for row in rows)


def test_on_two_ranks_ours_and_ddp_take_the_same_step_to_the_bit() -> None:
    found = data_parallel_step.measure_here(2, TINY, lambda text: None)
    check(found, 2)
    assert found["difference_after_a_step"] == 0.0


def test_on_three_hosts_they_take_the_same_step_up_to_the_order_of_sums() -> None:
    if reason := local_hosts.why_not():
        pytest.skip(reason)
    with local_hosts.LocalHosts(3, local_hosts.Link()) as hosts:
        found = data_parallel_step.measure_on(hosts, TINY, lambda text: None)
    check(found, 3)
    assert 0 <= found["difference_after_a_step"] < 1e-4


def test_where_hosts_cannot_be_made_the_claim_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_hosts, "PROGRAMS", ("ip", "no-such-program"))
    claim = data_parallel_step.exposed_claim(True, lambda text: None)
    assert claim.value is None and not claim.holds and "separate hosts need root" in claim.how
