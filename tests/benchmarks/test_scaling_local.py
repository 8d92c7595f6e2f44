"""benchmarks/scaling_local.py: predictions from made-up hosts and links, and a tiny real run; never how good they are."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.multihost import ROOT, local_hosts

sys.path.insert(0, str(ROOT / "benchmarks"))
local: Any = importlib.import_module("scaling_local")
sweep: Any = importlib.import_module("scaling_sweep")
prediction: Any = importlib.import_module("scaling_prediction")

TINY = sweep.Plan({**sweep.QUICK.work, "size": 32, "classes": 5}, (1000,), 1, 1, 1, 4)
LAYERS = 10  # of TSM-R18: stem, eight blocks, head
PHASES = {"to_device": 0.01, "forward": 0.6, "backward": 1.0, "optimizer": 0.05}
FAST = {"latency": 0.0, "bandwidth": 1e15, "busy_bandwidth": 1e15, "slowdown": 1.0}


def one_host(**changes: Any) -> Any:
    return prediction.OneHost(
        **{
            "phases": PHASES, "other": 0.04, "forward": [2.0] * LAYERS, "backward": [3.0] * LAYERS, "sigma": 0.0,
            "add_bandwidth": 1e15, **changes,
        }
    )  # fmt: skip


def predicted(method: str, hosts: int, **link: float) -> Any:
    job = prediction.job_of(TINY.facts(method, hosts), hosts)
    return prediction.predicted_step(job, one_host(), prediction.ProbedLink(**{**FAST, **link}))


@pytest.mark.parametrize("hosts", [2, 3])
def test_on_a_free_network_a_host_takes_what_it_takes_alone_and_a_copy_of_its_gradients(hosts: int) -> None:
    """The copy into buckets moves 2 numbers a parameter, where the optimizer (SGD with momentum) moves 12."""
    step = predicted("end_to_end", hosts)
    assert step.seconds == pytest.approx(sum(PHASES.values()) + 0.04 + PHASES["optimizer"] * 2 / 12, rel=1e-3)
    assert (step.forward, step.to_device) == pytest.approx((PHASES["forward"], PHASES["to_device"]))


@pytest.mark.parametrize("hosts", [2, 3])
def test_on_a_slow_network_a_step_is_its_ring(hosts: int) -> None:
    """11.2 million parameters: nothing but the first bucket's way is not beside the exchange."""
    size = 4 * prediction.job_of(TINY.facts("end_to_end", hosts), hosts).parameters
    ring = 2 * (hosts - 1) / hosts * size / 1e6
    step = predicted("end_to_end", hosts, bandwidth=1e6, busy_bandwidth=1e6)
    before = PHASES["to_device"] + PHASES["forward"] + PHASES["optimizer"] + 0.04
    assert ring < step.seconds - before < 1.05 * ring + PHASES["backward"] * 0.2


@pytest.mark.parametrize("stages", [2, 3])
def test_on_a_free_network_a_pipeline_takes_its_bubble(stages: int) -> None:
    """Layers of equal seconds: the slowest stage works through all micro-batches, and the others' first ones come on top."""
    job = prediction.job_of(TINY.facts("pipeline", stages), stages)
    one = (PHASES["forward"] + PHASES["backward"]) / TINY.pipeline_micro_batches
    loads = [len(cut) * one / LAYERS for cut in job.stage_layers]
    least = max(loads) * TINY.pipeline_micro_batches + sum(loads) - max(loads)
    step = predicted("pipeline", stages).seconds
    assert least + 0.04 < step < least + 0.04 + PHASES["to_device"] + PHASES["optimizer"] + 1e-3


def test_layers_share_out_the_phases_of_a_step() -> None:
    times = one_host(forward=[1.0, 3.0], backward=[1.0, 1.0]).layer_times(4)
    assert times == [pytest.approx((0.0375, 0.125)), pytest.approx((0.1125, 0.125))]


def test_a_machine_that_was_slower_in_a_turn_is_predicted_so() -> None:
    """Steps on one host took twice as long around the turn of two hosts as when one host was measured: so does all of it."""
    alone = [{"seconds": 1.7, "phases": PHASES, "yardstick": 1.6}]
    layers = [{"forward": [2.0] * LAYERS, "backward": [3.0] * LAYERS, "add_bandwidth": 1e15}]

    def case(yardstick: float) -> Any:
        steps = [
            {"method": "end_to_end", "hosts": 2, "rate": 1000, "seconds": 2.0, "phases": [], "yardstick": yardstick + more}
            for more in (-0.1, 0.0, 0.3)
        ]
        told = sweep.Told({"end_to_end": alone}, {"end_to_end": layers}, {"1000": [FAST]}, steps, {}, {})
        (only,) = prediction.cases_of(TINY, told)
        return only

    assert case(3.2).predicted == pytest.approx(2 * case(1.6).predicted, rel=1e-6)
    assert case(1.6).predicted == pytest.approx(1.7 + PHASES["optimizer"] * 2 / 12, rel=1e-3)
    assert (case(1.6).measured, case(1.6).steps) == (2.0, 3)


def test_claims_are_mean_and_largest_errors_of_all_cases() -> None:
    made = [("end_to_end", 1.0, 1.1), ("end_to_end", 1.0, 0.96), ("pipeline", 2.0, 1.5), ("pipeline", 2.0, 2.02)]
    cases = [prediction.Case(method, 2, 1000, 3, seconds, {"all": said}) for method, seconds, said in made]
    claims = {claim.name: claim for claim in local.claims_of(cases, TINY)}
    found = [claims[name].value for name in ("step_time_mean_error", "step_time_max_error", "pipeline_mean_error")]
    assert found == pytest.approx([7.0, 25.0, 13.0])
    assert [claim.holds for claim in claims.values()] == [True, False, False]


def test_where_hosts_cannot_be_made_the_claims_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_hosts, "PROGRAMS", ("ip", "no-such-program"))
    monkeypatch.setattr(sys, "argv", ["scaling_local.py", "--quick", "--json", str(tmp_path / "out.json")])
    local.main()
    claims = json.loads((tmp_path / "out.json").read_text())["claims"]
    assert [claim["name"] for claim in claims] == list(local.CLAIMS)
    assert all(not claim["holds"] and "separate hosts need root" in claim["how"] for claim in claims)


@pytest.mark.faults
def test_a_tiny_sweep_measures_every_case_and_predicts_it() -> None:
    if reason := local_hosts.why_not():
        pytest.skip(reason)
    try:
        told = sweep.measure(TINY, lambda text: None)
    except local_hosts.HostsError as error:
        pytest.skip(str(error))
    cases = prediction.cases_of(TINY, told)
    assert [(case.method, case.hosts) for case in cases] == [(m, n) for n in (2, 3) for m in ("end_to_end", "pipeline")]
    assert all(case.measured > 0 and case.predicted > 0 for case in cases)
    link = told.links["1000"][0]
    assert 50e6 < link["bandwidth"] < 125e6 and 0 < link["latency"] < 0.05
    assert len(told.layers["pipeline"][0]["forward"]) == LAYERS
