"""Placement changes no bit: 1, 2 and 3 ranks, several maps, late messages; a run that goes on is one that never stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hpcvideo.distributed.environment import child_variables, without_launcher

ROOT = Path(__file__).resolve().parents[3]
PARTS = ("weights", "optimizer", "extra")
SKIPS = [
    "unit_vgg",
    {
        "convolutions": 4, "dense": 0, "pools": 2, "width": 4,
        "skips": ["conv1 to conv3 by add", "frames to conv4 by projection", "conv2 to head by concat"],
    },
]  # fmt: skip
SHIFTED = ["unit_tsm_resnet18", {"width": 8, "skips": ["stem to layer3 by add"]}]
RECIPE = {"gradient_clip": 0.5, "ema_decay": 0.9}
TRAINING: dict[str, Any] = {"batch": 4, "micro": 2, "recipe": RECIPE, "dropout": 0.3, "mixup": 0.4}
SKIP_MAPS = {
    "two": [["conv1", "conv2"], ["conv3", "conv4", "head"]],
    "two-interleaved": [["conv2", "conv4"], ["head", "conv1", "conv3"]],
    "three": [["conv1"], ["conv2", "conv3"], ["conv4", "head"]],
    "three-scattered": [["head", "conv1"], ["conv3"], ["conv2", "conv4"]],
}


def run_cases(folder: Path, cases: dict[str, dict[str, Any]]) -> None:
    """Run cases by name; each leaves its files NAME.RANK, NAME.weights, NAME.optimizer and NAME.extra in the folder."""
    listed = [{**TRAINING, **case, "out": str(folder / name)} for name, case in cases.items()]
    file = folder / "cases.json"
    file.write_text(json.dumps(listed))
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu"))
    command = [sys.executable, "-m", "tests.methods.sideways.ranks", str(file)]
    answer = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=500, check=False)
    assert answer.returncode == 0, answer.stderr[-4000:]


def facts(folder: Path, name: str) -> list[dict[str, Any]]:
    """What each rank of a case tells."""
    return [json.loads((folder / f"{name}.{rank}").read_text()) for rank in range(len(list(folder.glob(f"{name}.[0-9]*"))))]


def differing(folder: Path, first: str, second: str, parts: tuple[str, ...] = PARTS) -> list[str]:
    """Names of tensors that are not in both cases with the same bits."""
    names: list[str] = []
    for part in parts:
        ours, theirs = load_file(folder / f"{first}.{part}"), load_file(folder / f"{second}.{part}")
        names += sorted(ours.keys() ^ theirs.keys())
        names += [name for name in ours.keys() & theirs.keys() if not torch.equal(ours[name], theirs[name])]
    return names


def on(stages: int, placement: list[list[str]] | None = None, **options: Any) -> dict[str, Any]:
    return {"stages": stages, **({"placement": placement} if placement else {}), **options}


KINDS: dict[str, dict[str, Any]] = {
    "reset": {"method": "skip_sideways", "model": SKIPS, "boundary": "reset"},
    "every2": {"method": "skip_sideways", "model": SKIPS, "boundary": "stream", "update_every": 2},
    "delayed": {"method": "delayed", "model": SKIPS, "boundary": "stream"},
    "drain": {"method": "skip_sideways", "model": SKIPS, "boundary": "drain", "update_every": 3},
}


PLACED = [(kind, name) for kind in ("every2", "delayed") for name in SKIP_MAPS]
PLACED += [("reset", "two-interleaved"), ("drain", "three-scattered")]


def case(kind: str, stages: int = 1, placement: list[list[str]] | None = None, **changes: Any) -> dict[str, Any]:
    chosen = dict(KINDS[kind])
    method, model = chosen.pop("method"), chosen.pop("model")
    options = on(stages, placement, **chosen)
    return {"method": method, "model": model, "options": options, "ranks": stages, "steps": [0, 2], "evaluate": 1, **changes}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of four clips a micro-batch and an evaluation, in one process and over ranks."""
    folder = tmp_path_factory.mktemp("trained")
    cases: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        cases[f"{kind}-one"] = case(kind)
    for kind, name in PLACED:
        cases[f"{kind}-{name}"] = case(kind, len(SKIP_MAPS[name]), SKIP_MAPS[name], late=True)
    cases["reset-batched"] = case("reset", 3, SKIP_MAPS["three-scattered"], batched=True)
    cases["reset-balanced"] = case("reset", 2)
    measured = on(3, boundary="stream", update_every=2, balance="measured")
    cases["every2-measured"] = {**case("every2", 3, late=True), "options": measured}
    shifted = {"method": "skip_sideways", "model": SHIFTED, "steps": [0, 2], "frames": 18, "dropout": 0.0, "mixup": 0}
    cases["shifted-one"] = {**shifted, "ranks": 1, "options": {"boundary": "stream"}}
    cases["shifted-three"] = {**shifted, "ranks": 3, "options": {"boundary": "stream", "stages": 3}}
    cases["replicas-one"] = case("every2", ranks=2)
    cases["replicas-two"] = case("every2", 2, SKIP_MAPS["two-interleaved"], ranks=4, late=True)
    exact = {"steps": [0, 3], "dropout": 0.0, "recipe": {"gradient_clip": 0}, "ranks": 1, "evaluate": 1}
    for name, model in (("skips", SKIPS), ("chain", [SKIPS[0], {**SKIPS[1], "skips": "none"}])):
        for method in ("delayed", "unrolled", "bp"):
            cases[f"{method}-of-{name}"] = {**exact, "method": method, "model": model, "options": {}}
    run_cases(folder, cases)
    return folder


@pytest.mark.parametrize(("kind", "name"), PLACED)
def test_weights_momenta_averages_and_messages_have_the_bits_of_one_process(trained: Path, kind: str, name: str) -> None:
    """P10, with dropout, mixup, clipping, averaged weights and messages that come late."""
    assert differing(trained, f"{kind}-one", f"{kind}-{name}") == []
    ours, reference = facts(trained, f"{kind}-{name}"), facts(trained, f"{kind}-one")[0]
    for rank in ours:
        assert rank["losses"] == reference["losses"]
        assert rank["norms"] == reference["norms"]
    found = [rank["outputs"][0] for rank in ours if rank["outputs"][0] is not None]
    assert found == reference["outputs"]
    assert sum(rank["share"][2] for rank in ours) == 1


def test_it_holds_in_one_call_a_step_as_nccl_needs_it_for_cuts_by_cost_and_for_shifts(trained: Path) -> None:
    assert differing(trained, "reset-one", "reset-batched") == []
    assert differing(trained, "reset-one", "reset-balanced") == []
    assert differing(trained, "every2-one", "every2-measured") == []
    assert differing(trained, "shifted-one", "shifted-three") == []


def test_two_replicas_of_two_stages_train_as_two_replicas_of_one(trained: Path) -> None:
    assert differing(trained, "replicas-one", "replicas-two") == []
    assert len({rank["norms"][-1] for rank in facts(trained, "replicas-two")}) == 1


@pytest.mark.parametrize(("network", "method"), [("skips", "unrolled"), ("chain", "unrolled"), ("chain", "bp")])
def test_delayed_trains_as_back_propagation_through_the_unrolled_graph_and_on_a_chain_as_bp(
    trained: Path, network: str, method: str
) -> None:
    """Three updates with momentum in fp32, under the same task, mixup and recipe; sums in another order."""
    one, other = f"delayed-of-{network}", f"{method}-of-{network}"
    ours, theirs = (load_file(trained / f"{name}.weights") for name in (one, other))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5)
    first, second = facts(trained, one)[0], facts(trained, other)[0]
    assert first["losses"] == pytest.approx(second["losses"], rel=1e-5)
    assert first["norms"] == pytest.approx(second["norms"], rel=1e-4)
    outputs = (torch.tensor(told["outputs"][0][0]) for told in (first, second))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


def test_bp_is_another_training_than_unrolled_where_there_are_skips(trained: Path) -> None:
    ours, theirs = facts(trained, "bp-of-skips")[0], facts(trained, "unrolled-of-skips")[0]
    assert ours["losses"] != pytest.approx(theirs["losses"], rel=1e-3)


def test_training_changes_the_weights_and_every_kind_differs(trained: Path) -> None:
    """What is compared above is no constant."""
    for first, second in (("reset", "every2"), ("reset", "delayed"), ("every2", "drain")):
        assert len(differing(trained, f"{first}-one", f"{second}-one", ("weights",))) > 10


def test_p12_messages_a_step_are_two_for_each_connection_between_ranks(tmp_path: Path) -> None:
    """In the steady state of a stream that is never masked: all features, and all cotangents but at the clips' seams."""
    model = ["unit_vgg", {"convolutions": 3, "dense": 0, "pools": 2, "width": 4}]
    plain = {"method": "sideways", "model": model, "micro": 4, "mixup": 0, "ranks": 2}
    options = {"stages": 2, "placement": [["conv1", "conv2"], ["conv3", "head"]], "boundary": "stream"}
    run_cases(tmp_path, {
        str(frames): {**plain, "options": options, "steps": [0, 3], "frames": frames} for frames in (12, 20)
    })  # fmt: skip
    for frames in (12, 20):
        first, second = (rank["sent"] for rank in facts(tmp_path, str(frames)))
        assert first[2] - first[1] == frames  # features of conv2, at every step
        depth, unit = 4, 3
        assert second[2] - second[1] == frames - 2 * (depth - unit)  # cotangents of conv3, where they are of one clip


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps at a time and in two halves, the second half on other ranks."""
    folder = tmp_path_factory.mktemp("resumed")
    kinds = ("every2", "delayed", "reset")
    run_cases(folder, {f"{kind}-{name}": case(kind, steps=steps, evaluate=0)
                       for kind in kinds for name, steps in (("whole", [0, 4]), ("half", [0, 2]))})  # fmt: skip
    rest: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        onwards = {"steps": [2, 4], "evaluate": 0, "load": str(folder / f"{kind}-half")}
        rest[f"{kind}-rest"] = case(kind, **onwards)
        rest[f"{kind}-rest-elsewhere"] = case(kind, 3, SKIP_MAPS["three-scattered"], **onwards)
        rest[f"{kind}-forgetful"] = case(kind, **onwards, without_extra=True, recipe={"gradient_clip": 0.5})
        rest[f"{kind}-plain"] = case(kind, steps=[0, 4], evaluate=0, recipe={"gradient_clip": 0.5})
    run_cases(folder, rest)
    return folder


@pytest.mark.parametrize("kind", ["every2", "delayed", "reset"])
def test_p16_a_run_that_goes_on_has_the_bits_of_one_that_never_stopped(resumed: Path, kind: str) -> None:
    assert differing(resumed, f"{kind}-whole", f"{kind}-rest") == []
    assert differing(resumed, f"{kind}-whole", f"{kind}-rest-elsewhere") == []
    assert facts(resumed, f"{kind}-whole")[0]["losses"][2:] == facts(resumed, f"{kind}-rest")[0]["losses"]


def test_p16_without_the_messages_in_flight_a_stream_would_go_another_way(resumed: Path) -> None:
    for kind in ("every2", "delayed"):
        assert differing(resumed, f"{kind}-plain", f"{kind}-forgetful", ("weights",))
    assert differing(resumed, "reset-plain", "reset-forgetful", ("weights",)) == []
