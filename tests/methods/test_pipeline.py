"""The method `pipeline` against `end_to_end` on the same micro-batches, in real processes over gloo: equal bits."""

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

ROOT = Path(__file__).resolve().parents[2]
TRAINING: dict[str, Any] = {
    "batch": 24,
    "micro": 3,
    "recipe": {"gradient_clip": 0.5, "optimizer": {"weight_decay": 0.01, "nesterov": True}},
    "dropout": 0.3,
    "mixup": 0.4,
}
STAGES_AND_REPLICAS = [(2, 1), (3, 1), (2, 2), (3, 2)]


def run_cases(folder: Path, cases: dict[str, dict[str, Any]]) -> None:
    """Run cases by name; each leaves its files NAME.RANK, NAME.weights and NAME.optimizer in the folder."""
    listed = [{**TRAINING, **case, "out": str(folder / name)} for name, case in cases.items()]
    file = folder / "cases.json"
    file.write_text(json.dumps(listed))
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu"))
    command = [sys.executable, "-m", "tests.methods.pipeline_ranks", str(file)]
    answer = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=500, check=False)
    assert answer.returncode == 0, answer.stderr[-4000:]
    assert answer.stdout == "", "standard output belongs to --json"


def facts(folder: Path, name: str) -> list[dict[str, Any]]:
    """What each rank of a case tells."""
    return [json.loads((folder / f"{name}.{rank}").read_text()) for rank in range(len(list(folder.glob(f"{name}.[0-9]*"))))]


def equal_bits(folder: Path, first: str, second: str) -> bool:
    """Whether two cases ended with the same weights, BatchNorm statistics and momenta."""
    same = True
    for part in ("weights", "optimizer"):
        ours, theirs = load_file(folder / f"{first}.{part}"), load_file(folder / f"{second}.{part}")
        assert ours.keys() == theirs.keys() and len(ours) > 40
        same = same and all(torch.equal(ours[name], theirs[name]) for name in ours)
    return same


def end_to_end(ranks: int, **changes: Any) -> dict[str, Any]:
    return {"method": "end_to_end", "ranks": ranks, **changes}


def pipeline(stages: int, replicas: int, **changes: Any) -> dict[str, Any]:
    options = {"stages": stages, **changes.pop("options", {})}
    return {"method": "pipeline", "options": options, "ranks": stages * replicas, **changes}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps and two evaluation batches, by end_to_end on 1 and 2 ranks and by every pipeline."""
    folder = tmp_path_factory.mktemp("trained")
    same = {"steps": [0, 3], "evaluate": 2}
    cases = {f"ranks-{ranks}": end_to_end(ranks, **same) for ranks in (1, 2)}
    cases |= {f"{stages}x{replicas}": pipeline(stages, replicas, **same) for stages, replicas in STAGES_AND_REPLICAS}
    run_cases(folder, cases)
    return folder


@pytest.mark.parametrize(("stages", "replicas"), STAGES_AND_REPLICAS)
def test_losses_norms_weights_and_momenta_are_those_of_end_to_end_bit_for_bit(
    trained: Path, stages: int, replicas: int
) -> None:
    """With dropout, mixup, clipping, weight decay and BatchNorm; R replicas against end_to_end on R ranks."""
    ours, reference = facts(trained, f"{stages}x{replicas}"), facts(trained, f"ranks-{replicas}")
    assert len(ours) == stages * replicas and len(ours[0]["stages"]) == stages
    for rank in ours:
        same_share = reference[rank["share"][0]]
        assert rank["losses"] == same_share["losses"]
        assert rank["norms"] == same_share["norms"]
    assert min(reference[0]["norms"]) > TRAINING["recipe"]["gradient_clip"], "the clip must bite to mean anything"
    assert equal_bits(trained, f"{stages}x{replicas}", f"ranks-{replicas}")
    assert sorted((rank["share"][0], rank["share"][2]) for rank in ours) == sorted(
        (replica, stage == 0) for replica in range(replicas) for stage in range(stages)
    )


@pytest.mark.parametrize("stages", [2, 3])
def test_two_replicas_train_as_one_process_does_up_to_the_order_of_sums(trained: Path, stages: int) -> None:
    one, two = facts(trained, "ranks-1")[0], facts(trained, f"{stages}x2")
    for step, loss in enumerate(one["losses"]):
        assert sum(rank["losses"][step] for rank in two) / len(two) == pytest.approx(loss, rel=1e-5)
    ours, reference = (load_file(trained / f"{name}.optimizer") for name in (f"{stages}x2", "ranks-1"))
    for name, momentum in reference.items():
        torch.testing.assert_close(ours[name], momentum, rtol=1e-3, atol=1e-4 * float(momentum.abs().max()))


@pytest.mark.parametrize(("stages", "replicas"), STAGES_AND_REPLICAS)
def test_evaluation_gives_each_clip_s_output_once_and_with_its_label(trained: Path, stages: int, replicas: int) -> None:
    ours, reference = facts(trained, f"{stages}x{replicas}"), facts(trained, f"ranks-{replicas}")
    for rank in ours:
        replica = rank["share"][0]
        answered = [output is not None for output in rank["outputs"]]
        assert answered == [False, False] or rank["outputs"] == reference[replica]["outputs"]
    assert sum(rank["outputs"][0] is not None for rank in ours) == replicas


def test_every_second_of_a_step_has_its_phase(trained: Path) -> None:
    """DeepSpeed times no gradient all-reduce; here it is communication_exposed, and what stages wait is pipeline_wait."""
    for rank in facts(trained, "3x2"):
        for phases in rank["phases"]:
            assert phases["communication_exposed"] > 0
            assert min(phases[name] for name in ("forward", "backward", "pipeline_wait", "optimizer")) > 0
            assert (phases["to_device"] > 0) == rank["share"][2]


def test_a_rank_makes_two_process_groups_whatever_the_world_size(trained: Path) -> None:
    assert {rank["groups"] for name in ("2x2", "3x2") for rank in facts(trained, name)} == {2}


def test_a_checkpoint_goes_from_two_stages_to_one_process_to_three_stages_with_equal_bits(tmp_path: Path) -> None:
    run_cases(
        tmp_path,
        {
            "whole": end_to_end(1, steps=[0, 6]),
            "first": pipeline(2, 1, steps=[0, 2]),
            "second": end_to_end(1, steps=[2, 4], load=str(tmp_path / "first")),
            "third": pipeline(3, 1, steps=[4, 6], load=str(tmp_path / "second"), options={"balance": "measured"}),
            "loaded": pipeline(2, 2, load=str(tmp_path / "second")),
            "refused": pipeline(2, 1, load=str(tmp_path / "second"), without="conv1.weight"),
        },
    )
    assert equal_bits(tmp_path, "third", "whole")
    assert not equal_bits(tmp_path, "second", "whole")
    assert equal_bits(tmp_path, "loaded", "second"), "another number of stages and replicas holds what was loaded"
    losses = [loss for name in ("first", "second", "third") for loss in facts(tmp_path, name)[0]["losses"]]
    assert losses == facts(tmp_path, "whole")[0]["losses"]
    for rank in facts(tmp_path, "refused"):  # also the rank whose stage has no conv1
        assert "missing ['conv1.weight']" in rank["refused"]
