"""Checkpoints by several ranks, beside the training: what is stored, what a failure does, what a kill leaves behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcvideo.distributed.environment import child_variables, without_launcher
from hpcvideo.training.checkpoint import latest_checkpoint, read_checkpoint
from tests.small_disk import small_disk

ROOT = Path(__file__).resolve().parents[2]
Seen = dict[str, list[dict[str, Any]]]
DAMAGES = ("flip", "cut", "state", "missing", "gone")
DEATHS = {
    "rank_1_dies_writing": [1, 9], "rank_0_dies_before_the_rename": [9, 1], "rank_0_dies_before_latest": [9, 1],
    "another_job_takes_over": [1, 1],
}  # fmt: skip
HOURS = 1e-4  # between failures: so short that checkpoints of milliseconds pay off within a scene


def play(folder: Path, shards: Path, scenes: dict[str, dict[str, Any]]) -> Seen:
    """Play scenes of saving_ranks one after another: by name what each rank saw; ranks may die where `codes` are given."""
    config = {
        "name": "tiny", "seed": 3, "task": {"name": "classification", "num_classes": 3},
        "model": {"name": "tsm_resnet18", "frames": 4, "options": {"width": 8}},
        "data": {"train": str(shards / "train"), "size": 24, "short_side": 32, "flip": False, "workers": 1,
                 "worker_kind": "thread"},
        "recipe": {"global_batch": 8, "micro_batch": 4, "steps": 1000, "ema_decay": 0.9, "dropout": 0.3},
        "checkpoint": {"keep": 3},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    listed = []
    for name, scene in scenes.items():
        made = {"config": str(folder / "config.yaml"), "run": str(folder / f"run-{name}"), "ranks": 2}
        listed.append({**made, "out": str(folder / name), **scene})
    (folder / "scenes.json").write_text(json.dumps(listed))
    answer = subprocess.run(
        [sys.executable, "-m", "tests.training.saving_ranks", str(folder / "scenes.json")], cwd=ROOT, check=True,
        timeout=600, capture_output=True, text=True, env=without_launcher(child_variables(OMP_NUM_THREADS="1")),
    )  # fmt: skip
    seen: Seen = {}
    for name, scene in zip(scenes, listed, strict=True):
        codes = json.loads((folder / f"{name}.codes").read_text())
        assert codes == scene.get("codes", [0] * scene["ranks"]), f"{name}\n{answer.stderr[-6000:]}"
        files = [folder / f"{name}.{rank}" for rank in range(scene["ranks"])]
        seen[name] = [json.loads(file.read_text()) if file.exists() else {} for file in files]
    return seen


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, shard_folder: Path) -> Seen:
    """All scenes that need nothing of this process but runs that were damaged."""
    folder = tmp_path_factory.mktemp("saving")
    pipeline = ["method.name=pipeline", "method.stages=2"]
    stages, three = str(folder / "run-stages"), str(folder / "run-three")
    scenes: dict[str, dict[str, Any]] = {
        "beside": {"scene": "beside"},
        "back": {"scene": "back"},
        "stuck": {"scene": "stuck"},
        "automatic": {
            "scene": "automatic", "set": ["checkpoint.interval=auto", f"checkpoint.node_mtbf_hours={HOURS}"],
        },
        "stages": {"scene": "beside", "set": pipeline},
        "stages again": {"scene": "look", "run": stages, "set": pipeline},
        "stages alone": {"scene": "look", "run": stages, "ranks": 1},
        **{f"three-{step}": {"scene": "look", "run": three, "ranks": 1} for step in range(3)},
    }  # fmt: skip
    for name, codes in DEATHS.items():
        scenes[name] = {"scene": name, "codes": codes}
        scenes[f"{name}, then"] = {"scene": "look", "run": str(folder / f"run-{name}")}
    first = play(folder, shard_folder, scenes)
    for how in (*DAMAGES, "all", "pointer"):
        shutil.copytree(three, folder / f"run-{how}")
        for step in (1, 2, 3) if how == "all" else (3,) if how != "pointer" else ():
            damage(folder / f"run-{how}" / "checkpoints" / f"step-{step}", "flip" if how == "all" else how)
    (folder / "run-pointer" / "checkpoints" / "latest").write_bytes(b"st\xffp-3")
    damaged = {how: {"scene": "look"} for how in (*DAMAGES, "pointer")}
    return first | play(folder, shard_folder, {**damaged, "all": {"scene": "refused"}})


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def test_training_goes_on_while_all_ranks_write_and_what_is_stored_is_the_state_of_the_begin(seen: Seen) -> None:
    for ranks in (seen["beside"],):
        assert sorted(name for rank in ranks for name in rank["own"]) == [
            "extra.safetensors", "optimizer.safetensors", "weights.safetensors",
        ]  # fmt: skip
        assert all(rank["own"] for rank in ranks), "every rank writes"
        for rank in ranks:
            assert rank["held"] == [None, []], "three steps later nothing is whole, and training went on"
            assert rank["half"] == [None, []], "one rank has written, the other not"
            assert rank["same"] and rank["moved"] > 30 and rank["notes"] == {"left_out": [1]}
            assert all(stored == held > 0 for stored, held in rank["counts"].values())
            assert [(event["event"], event["step"]) for event in rank["events"]] == [
                ("checkpoint", 2), ("checkpoint", rank["step"]),
            ]  # fmt: skip
            first = rank["events"][0]
            assert first["write_seconds"] > first["seconds"] > 0 and first["path"] == "checkpoints/step-2"
            assert rank["latest"] == f"step-{rank['step']}"


def test_a_full_disk_is_told_and_the_run_goes_on_until_its_last_checkpoint_fails(
    shard_folder: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 16 << 20) as disk, small_disk(tmp_path / "small", 6 << 20) as small:
        scenes = {"full": {"scene": "full_disk", "run": str(disk)}, "at once": {"scene": "full_at_once", "run": str(small)}}
        told = play(tmp_path, shard_folder, scenes)
        ranks = told["full"]
        for rank in ranks:
            first, failed, third = rank["found"]
            assert first == failed == "step-1" and third not in ("step-1", None) and rank["remains"] == []
            assert kinds(rank["events"]) == ["checkpoint", "warning", "checkpoint", "warning", "checkpoint"]
            warning = rank["events"][1]["sentence"]
            assert f"step-{rank['failed']}: cannot write the checkpoint: rank" in warning and "No space left" in warning
            assert "No space left" in rank["said"] and "the checkpoint before is whole" in rank["said"]
            assert rank["latest"] == [third, f"step-{rank['step']}"]
        path = latest_checkpoint(disk / "checkpoints")
        assert path is not None and read_checkpoint(path).facts.step == ranks[0]["step"]
    for rank in told["at once"]:  # none is whole there: the run ends
        assert "step-1: cannot write the checkpoint: rank" in rank["said"] and rank["latest"] is None
        assert "before is whole" not in rank["said"]


def test_a_wait_for_a_disk_that_does_not_answer_is_no_sign_of_life(seen: Seen) -> None:
    for rank, told in enumerate(seen["stuck"]):
        assert told["signs"] == 0 and told["all_signs"] > 0 and told["latest"] == "step-1"
        assert told["waits"] == (rank == 0), "rank 1 is the one that is stuck"


@pytest.mark.parametrize("death", DEATHS)
def test_a_rank_that_dies_while_it_writes_leaves_the_checkpoint_before(seen: Seen, death: str) -> None:
    ranks = seen[f"{death}, then"]
    for rank in ranks:
        assert rank["resumed"] == 1 and rank["events"] == []
        assert not any(name.startswith(".") for name in rank["listed"]), "remains are cleared away"
        assert rank["after"] == ["latest", "step-1", "step-2"]
        assert rank["sum"] == ranks[0]["sum"]


def test_a_pipeline_s_stages_write_their_own_layers_and_any_run_reads_them(seen: Seen) -> None:
    first, again, alone = (seen[name] for name in ("stages", "stages again", "stages alone"))
    for stage, rank in enumerate(first):
        assert sorted(rank["own"]) == [f"{part}-stage-{stage}.safetensors" for part in ("extra", "optimizer", "weights")]
        assert rank["same"] and rank["counts"]["weights"][0] > rank["counts"]["weights"][1] > 0
    assert [rank["resumed"] for rank in again] == [first[0]["step"]] * 2
    assert alone[0]["resumed"] == first[0]["step"] + 1 and alone[0]["notes"] == {"left_out": [1]}


def test_going_back_in_mid_run_waits_for_what_is_being_written(seen: Seen) -> None:
    assert [(rank["step"], rank["same"]) for rank in seen["back"]] == [(2, True)] * 2


def damage(path: Path, how: str) -> None:
    names = {"state": "state.json", "missing": "optimizer.safetensors"}
    file = path / names.get(how, "weights.safetensors")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    if how in ("flip", "cut", "state"):
        file.write_bytes(content[:-100] if how == "cut" else content)
    elif how == "missing":
        file.unlink()
    else:
        shutil.rmtree(path)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_newest_is_set_aside_and_all_ranks_take_the_one_before(seen: Seen, how: str) -> None:
    ranks = seen[how]
    assert [rank["resumed"] for rank in ranks] == [2, 2] and ranks[0]["sum"] == ranks[1]["sum"]
    warning = ranks[0]["events"][0]
    named = {"flip": "weights.safetensors", "cut": "weights.safetensors", "missing": "optimizer.safetensors"}
    assert warning["event"] == "warning" and named.get(how, "state.json") in warning["sentence"]
    assert "step-3 is damaged" in warning["sentence"] and "goes on from step-2" in warning["sentence"]
    aside = [] if how == "gone" else ["damaged-step-3"]
    assert ranks[0]["listed"] == [*aside, "latest", "step-1", "step-2"]
    assert ranks[0]["after"] == [*aside, "latest", "step-1", "step-2", "step-3"], "the step is done and stored anew"


def test_where_none_is_whole_all_stay_and_the_error_names_each(seen: Seen) -> None:
    for rank in seen["all"]:
        for step in (1, 2, 3):
            assert f"step-{step}: weights.safetensors does not have the digest" in rank["said"]
        assert rank["listed"] == ["latest", "step-1", "step-2", "step-3"]


def test_a_pointer_that_is_damaged_does_not_hide_the_checkpoints(seen: Seen) -> None:
    assert [rank["resumed"] for rank in seen["pointer"]] == [3, 3]


def test_an_automatic_interval_measures_the_first_and_then_follows_young(seen: Seen) -> None:
    ranks = seen["automatic"]
    saved = ranks[0]["saved"]
    assert ranks[1]["saved"] == saved and saved[0] == 10 and len(saved) > 1
    told = [event for event in ranks[0]["events"] if event["event"] == "checkpoint"]
    assert [event["step"] for event in told] == saved
    for event, following in zip(told, saved[1:], strict=False):
        interval = event["interval"]
        young = (2 * interval["cost_seconds"] * 3600 * HOURS) ** 0.5
        assert interval["mtbf_hours"] == HOURS
        assert interval["seconds"] == pytest.approx(max(young, interval["cost_seconds"]))
        assert following == interval["next_step"]
    assert told[0]["interval"]["cost_seconds"] == pytest.approx(told[0]["seconds"] + told[0]["write_seconds"])
    assert "auto" in ranks[0]["facts"]["checkpoints"]
