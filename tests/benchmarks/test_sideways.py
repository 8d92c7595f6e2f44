"""benchmarks/sideways.py: slots and held bytes against closed forms, latencies of made-up moments, and tiny real runs."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_bytes import PeakSaved
from sideways import LEARNT, PARTS, scheme_table
from sideways_memory import memory_claim
from sideways_slots import slots
from torch import nn

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TINY = {"classes": 5, "clip_frames": 21, "frames": 21, "size": 32, "micro_batch": 2}
TINY_NET = {"options": {"cut": "blocks", "dropout": 0.0, "width": 8}}


def loaded(name: str) -> Any:
    """A script whose name another module has too."""
    spec = importlib.util.spec_from_file_location(f"contestant_{name}", BENCHMARKS / "step_contestants" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def quiet(text: str) -> None:
    pass


def test_every_part_has_its_module() -> None:
    assert PARTS[:3] == ("ranks_2_over_1", "frames_over_blocking_bp", "memory_512_over_8_frames")
    for module in LEARNT.values():
        found = ast.parse((BENCHMARKS / f"{module}.py").read_text()).body
        (claims,) = [one for one in found if isinstance(one, ast.FunctionDef) and one.name == "claims"]
        assert [argument.arg for argument in claims.args.args] == ["quick", "tell"]


@pytest.mark.parametrize(("units", "frames"), [(2, 4), (8, 64), (10, 32)])
def test_slots_are_the_closed_forms(units: int, frames: int) -> None:
    expected = {
        "sideways": (frames, 1),
        "sideways, drained": (frames + 2 * units - 2, 1),
        "1F1B": (frames + units - 1, min(units, frames)),
        "GPipe": (frames + units - 1, frames),
        "blocking bp": (frames * units, 1),
    }
    for scheme, (count, held) in expected.items():
        assert slots(scheme, units, frames) == {"slots_a_clip": count, "frames_held": held}
    with pytest.raises(KeyError):
        slots("another", units, frames)


def test_held_bytes_are_those_of_tensors_and_go_with_their_graph() -> None:
    layer = nn.Linear(8, 8)
    given = torch.rand(4, 8)
    with PeakSaved(layer.parameters()) as saved:
        first = layer(given).relu()  # keeps what it was given, and the relu's output
        one = saved.now
        second = layer(first)  # keeps its input, which is that output
        assert one == saved.now == given.nbytes + first.nbytes
        del first
        second.sum().backward()
        del second
        assert (saved.now, saved.peak) == (0, one)
        for _ in range(3):
            layer(given).relu().sum().backward()
    assert saved.peak == one


def test_latency_is_from_a_frames_arrival_to_the_last_update_that_it_leads_to() -> None:
    script = loaded("sideways")
    pipeline = {"method": {"name": "pipeline"}}
    ranks = [{"arrivals": [1.0, 2.0], "updates": [5.0]}, {"arrivals": [1.1, 2.2], "updates": [6.0]}]
    assert script.latency(pipeline, ranks, {}) == {"mean": 4.5, "largest": 5.0}
    stream = {"method": {"name": "sideways", "update_every": 1}}
    units = {"gradients_per_clip": {"one": 3, "two": 5}}
    # Steps begin at 0, 10, 20 and 30: frame 1 reaches unit one in the third, of which 29 is the last update.
    ranks = [{"steps": [0.0, 10.0, 20.0, 30.0], "updates": [25.0, 36.0]}, {"steps": [], "updates": [5.0, 15.0, 29.0, 39.0]}]
    assert script.latency(stream, ranks, units) == {"mean": 29.0, "largest": 29.0}
    assert script.latency({"method": {"name": "sideways"}}, ranks, units) is None


def test_the_schemes_are_one_table() -> None:
    row = {"scheme": "sideways", "frames_a_second": 7.0, "latency_mean_seconds": None, "updates_a_clip": 8}
    table = scheme_table([{**row, **slots("sideways", 4, 8)}, {"scheme": "GPipe", **slots("GPipe", 4, 8)}])
    assert [list(column.cells) for column in table.columns] == [
        ["sideways", "GPipe"], ["7", ""], ["", ""], ["", ""], ["8", ""], ["8", "11"], ["1", "8"],
    ]  # fmt: skip


@pytest.mark.faults
def test_the_memory_claim_holds_to_the_byte_and_back_propagation_through_time_grows() -> None:
    claim = memory_claim(quiet, (8, 16))
    assert (claim.name, claim.bound, claim.value) == ("memory_512_over_8_frames", "<= 1", 1.0), claim.how
    assert claim.holds and claim.details["equal_to_the_byte"]
    growth = claim.details["growth"].pop("back-propagation through time")
    assert growth == pytest.approx((16 - 2) / (8 - 2), rel=0.15)
    assert set(claim.details["growth"].values()) == {1.0}


@pytest.mark.faults
def test_the_speed_claims_run_and_have_their_bounds() -> None:
    from sideways_speed import ranks_claim, stream_claim

    ranks = ranks_claim(quiet, 2, True, **TINY, **TINY_NET)
    assert (ranks.name, ranks.bound) == ("ranks_2_over_1", ">= 1.7")
    assert ranks.value is not None and ranks.value > 0, ranks.how
    assert len(ranks.details["processor_seconds_a_clip"]["2 ranks"]) == 2
    stream = stream_claim(quiet, 2, True, **TINY, **TINY_NET)
    assert (stream.name, stream.bound) == ("frames_over_blocking_bp", ">= 1.5")
    assert stream.value is not None and stream.value > 0, stream.how
    rows = {row["scheme"]: row for row in stream.details["table"]}
    assert list(rows) == ["sideways", "blocking bp", "1F1B", "sideways, drained", "GPipe"]
    for scheme in ("sideways", "blocking bp", "1F1B"):
        assert 0 < rows[scheme]["latency_mean_seconds"] <= rows[scheme]["latency_largest_seconds"]
    assert ranks_claim(quiet, 1).value is None and "only one core" in stream_claim(quiet, 1).how
