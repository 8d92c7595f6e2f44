"""The rehearsal of a job: what its ranks answer at full scale, and every way in which they may not fit together."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.config import load_config
from hpcvideo.data.rehearsal import (
    RehearsalPlan,
    answer_of_rank,
    find_faults,
    load_answers,
    load_plan,
    rehearsal_folder,
    save_answer,
)
from hpcvideo.data.sample_order import global_batch
from hpcvideo.distributed.environment import ProcessEnvironment, child_variables, without_launcher
from hpcvideo.errors import InputError
from hpcvideo.training.rehearsal import write_rehearsal

SMALL = RehearsalPlan("small", 6, 3, 2, True, 12, 7, (10, 20), None, (0, 2))


def place_of(rank: int, plan: RehearsalPlan, attempt: str = "7.0.0") -> ProcessEnvironment:
    """What discover() finds on rank `rank` of a job of whole nodes."""
    own, node = plan.ranks_per_node, rank // plan.ranks_per_node
    nodes = plan.world_size // own
    return ProcessEnvironment(
        "slurm", rank, plan.world_size, rank % own, own, node, nodes, f"n{node}", "n0", 20007, "7", attempt
    )


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the 6 ranks of SMALL answer where each sees all three GPUs of its node."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    return [answer_of_rank(SMALL, place_of(rank, SMALL)) for rank in range(6)]


def test_a_rank_answers_with_its_stage_device_and_part_of_the_batch(answers: list[dict[str, Any]]) -> None:
    assert [answer["device"] for answer in answers] == [0, 1, 2, 0, 1, 2]
    assert [(answer["stage"], answer["start"], answer["stop"]) for answer in answers] == [
        (0, 0, 4), (1, 0, 4), (0, 4, 8), (1, 4, 8), (0, 8, 12), (1, 8, 12)
    ]  # fmt: skip
    epochs, samples = global_batch(30, 7, 2, 12)  # the one in which the first epoch ends
    assert set(epochs.tolist()) == {0, 1}
    assert answers[3]["batches"][1] == {"step": 2, "epochs": epochs[4:8].tolist(), "samples": samples[4:8].tolist()}
    assert answers[4]["batches"] == [], "one rank a node tells the samples"
    assert find_faults(SMALL, answers) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda a: a.pop(4), "1 rank(s) did not answer: 4"),
        (lambda a: a.append(a[2]), "1 rank(s) answered more than once: 2"),
        (lambda a: a[5].update(master_port=9), "master_port differs between ranks: 20007 (5 ranks), 9 (1 ranks)"),
        (lambda a: a[5].update(master_address="n1"), "master_address differs"),
        (lambda a: a[4].update(local_rank=0), "rank 4: local_rank is 0, expected 1"),
        (lambda a: a[4].update(stage=1), "rank 4: stage is 1, expected 0"),
        (lambda a: a[4].update(device=0), "node n1: device 0 is taken by 2 ranks"),
        (lambda a: a[3].update(node_name="n0"), "node n0 is called number [0, 1]"),
        (lambda a: [x.update(node_name="n0", node_rank=0) for x in a], "1 nodes answered, expected 2"),
        (lambda a: a[2].update(start=5), "stage 0: 11 of the 12 samples of a batch have exactly one owner"),
        (lambda a: a[3].update(start=3, stop=7), "stage 1: 10 of the 12 samples of a batch have exactly one owner"),
        (lambda a: a[3]["batches"][1]["samples"].reverse(), "1 rank(s) would not read the samples of step 2"),
    ],
)
def test_what_does_not_fit_is_told(answers: list[dict[str, Any]], change: Callable[[list[Any]], object], told: str) -> None:
    wrong = copy.deepcopy(answers)
    change(wrong)
    assert any(told in fault for fault in find_faults(SMALL, wrong)), find_faults(SMALL, wrong)


def test_where_each_rank_sees_one_device_alone_none_is_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    found = [answer_of_rank(SMALL, place_of(rank, SMALL)) for rank in range(6)]
    assert {answer["device"] for answer in found} == {0} and find_faults(SMALL, found) == []


@pytest.mark.parametrize(("recipe", "stages"), [("tsm_r50_8f_summit_256x6", 1), ("tsm_r50_8f_summit_256x6_pipeline", 2)])
def test_all_1536_ranks_of_the_largest_recipes_fit_together(recipe: str, stages: int, tmp_path: Path) -> None:
    plan = write_rehearsal(load_config(f"kinetics400/{recipe}"), 1536, 6, tmp_path, samples=240_000)
    assert load_plan(tmp_path) == plan
    assert (plan.stages, plan.global_batch, plan.steps) == (stages, 12288, (0, 240_000 // 12288))
    for rank in range(1536):
        save_answer(answer_of_rank(plan, place_of(rank, plan)), tmp_path)
    found = load_answers(tmp_path)
    assert [answer["rank"] for answer in found] == list(range(1536))
    assert len(list(rehearsal_folder(tmp_path).glob("*.jsonl"))) == 256
    assert find_faults(plan, found) == []
    owners: dict[int, list[int]] = {}
    for answer in found:
        for sample in range(answer["start"], answer["stop"]):
            owners.setdefault(sample, []).append(answer["stage"])
    assert len(owners) == 12288 and all(sorted(stages_of) == list(range(stages)) for stages_of in owners.values())


def test_only_the_latest_start_counts_and_a_new_plan_forgets_the_answers(tmp_path: Path) -> None:
    config = load_config("demo/tsm_r18_local")
    plan = write_rehearsal(config, 2, 2, tmp_path, samples=50)
    for attempt, ranks in (("99.0.0", (0, 1)), ("100.0.0", (0, 1)), ("100.0.1", (1,))):
        for rank in ranks:
            save_answer(answer_of_rank(plan, place_of(rank, plan, attempt)), tmp_path)
    assert [(answer["rank"], answer["attempt"]) for answer in load_answers(tmp_path)] == [(1, "100.0.1")]
    write_rehearsal(config, 2, 2, tmp_path, samples=50)
    with pytest.raises(InputError, match="no rank has answered"):
        load_answers(tmp_path)
    with pytest.raises(InputError, match="no plan of a rehearsal"):
        load_plan(tmp_path / "other")


def doctor(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    values = {**without_launcher(child_variables()), **variables}
    command = [sys.executable, "-m", "hpcvideo", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=values, timeout=120, check=False)


def test_the_command_of_a_rank_and_the_one_that_judges(tmp_path: Path) -> None:
    write_rehearsal(load_config("demo/tsm_r18_local"), 2, 2, tmp_path, samples=50)
    step = {"SLURM_JOB_ID": "5", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURMD_NODENAME": "a"}
    step |= {"SLURM_STEP_TASKS_PER_NODE": "2"}
    assert doctor("--rank", "--run", str(tmp_path), **step, SLURM_PROCID="0", SLURM_LOCALID="0").returncode == 0
    judged = doctor("--rehearsal", str(tmp_path))
    assert judged.returncode == 1 and "did not answer: 1" in judged.stdout
    # In another order of its options the command goes through the whole command line; the answer is the same.
    assert doctor("--run", str(tmp_path), "--rank", **step, SLURM_PROCID="1", SLURM_LOCALID="1").returncode == 0
    judged = doctor("--rehearsal", str(tmp_path))
    assert judged.returncode == 0 and "has exactly one owner" in judged.stdout, judged.stdout
    assert json.loads(doctor("--rehearsal", str(tmp_path), "--json").stdout)["faults"] == []
    alone = doctor("--rank", "--run", str(tmp_path))
    assert alone.returncode == 2 and "this job has 1 ranks, but its plan is for 2" in alone.stderr
    assert doctor().returncode == 2 and doctor("--rank").returncode == 2
    assert doctor("--site", "local", "--rehearsal", str(tmp_path)).returncode == 2


def test_a_rank_s_answer_costs_no_heavy_import(tmp_path: Path) -> None:
    """1,536 of them share a machine: the first of a node may take numpy, the others not even that."""
    plan = write_rehearsal(load_config("demo/tsm_r18_local"), 2, 2, tmp_path, samples=50)
    code = (
        "import sys; sys.argv[1:] = ['doctor', '--rank', '--run', sys.argv[1]]; from hpcvideo.__main__ import main; main();"
        "print(sorted({'torch', 'deepspeed', 'numpy', 'typer', 'rich', 'pydantic', 'yaml'} & set(sys.modules)))"
    )
    step = {"SLURM_JOB_ID": "5", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_NNODES": "1"}
    for rank, heavy in ((0, "['numpy']"), (1, "[]")):
        variables = {**child_variables(**step), "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=variables, check=True
        )
        assert done.stdout.strip() == heavy
    assert len(load_answers(tmp_path)) == plan.world_size
