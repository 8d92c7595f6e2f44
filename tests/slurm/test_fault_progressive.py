"""Fragments on three hosts, one of which loses its power in the middle of a video: the job goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcvideo.training.checkpoint import read_checkpoint
from tests.slurm.fault_run import SAVE_STEPS, STEPS, FaultRun, fault_config

pytestmark = [pytest.mark.slurm, pytest.mark.faults]

NODE = "h2"


@pytest.fixture(scope="module")
def config(shard_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each of a video's 3 fragments is an update, so that the checkpoint after 5 of them lies within the second video."""
    path = fault_config(shard_folder, tmp_path_factory.mktemp("progressive"))
    values = yaml.safe_load(path.read_text())
    values["method"] = {"name": "progressive", "fragment_frames": 4, "update": "fragment"}
    values["model"] = {"name": "progressive_slowonly_resnet26", "frames": 8, "options": {"width": 8, "carry": "max"}}
    values["data"] |= {"sampling": {"kind": "dense", "window": 8}}
    path.write_text(yaml.safe_dump(values))
    return path


def bits(run: FaultRun, step: int) -> dict[str, bytes]:
    """Every tensor of a checkpoint."""
    checkpoint = read_checkpoint(run.directory.checkpoints / f"step-{step}")
    parts = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer, "extra": checkpoint.extra}
    return {f"{part}/{name}": tensor.numpy().tobytes() for part, held in parts.items() for name, tensor in held.items()}


def test_a_host_that_loses_its_power_in_mid_video_changes_no_bit_of_weights_and_carried_features(
    host_cluster: Any, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_CONF", raising=False)
    undisturbed = FaultRun(host_cluster, config, tmp_path / "undisturbed")
    assert undisturbed.wait(undisturbed.submit()) == [0], undisturbed.told()
    run = FaultRun(host_cluster, config, tmp_path / "run")
    (job,) = run.submit()
    with run.held_after(SAVE_STEPS + 2):
        saved = int(run.saved().removeprefix("step-"))
        assert len(run.ranks(NODE)) == 1, "a rank works there"
        run.cluster.kill_node(NODE)
    run.wait_for_restart(job)
    assert run.wait([job]) == [0], run.told()
    (resume,) = run.events("resume")
    assert resume["step"] == saved
    assert saved % 3, "in the middle of a video"
    ours, theirs = bits(run, STEPS), bits(undisturbed, STEPS)
    assert any(name.startswith("extra/carried/") for name in ours), "it ends in the middle of a video, too"
    assert ours.keys() == theirs.keys() and [name for name in ours if ours[name] != theirs[name]] == []
