"""Units on three hosts, one of which loses its power in mid-training: the job goes on with another one, to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcvideo.training.checkpoint import read_checkpoint
from tests.conftest import run_hpcvideo
from tests.slurm.fault_run import SAVE_STEPS, STEPS, FaultRun, fault_config

pytestmark = [pytest.mark.slurm, pytest.mark.faults]

NODE = "h2"
UNITS = ["conv1", "conv2", "conv3", "head"]
PLACEMENT = [["conv1", "head"], ["conv2"], ["conv3"]]
"""Stages are not in the order of units, so that messages go between all pairs of hosts."""


@pytest.fixture(scope="module")
def config(shard_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Skip-Sideways whose clips stream and whose units update at every frame: messages are always on their way."""
    path = fault_config(shard_folder, tmp_path_factory.mktemp("sideways"))
    values = yaml.safe_load(path.read_text())
    streaming = {"boundary": "stream", "update_every": 1}
    values["method"] = {"name": "skip_sideways", "stages": 3, "placement": PLACEMENT, **streaming}
    small = {"convolutions": 3, "dense": 0, "pools": 2, "width": 8}
    skips = ["conv1 to conv3 by add", "conv2 to head by concat"]
    values["model"] = {"name": "unit_vgg", "frames": 9, "options": {**small, "skips": skips}}
    values["recipe"] |= {"base_lr_per_64_clips": 0.01, "dropout": 0.2}
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def undisturbed_units(_started_hosts: Any, config: Path, tmp_path_factory: pytest.TempPathFactory) -> FaultRun:
    """The run on three hosts that nothing happened to."""
    run = FaultRun(_started_hosts, config, tmp_path_factory.mktemp("undisturbed") / "run")
    assert run.wait(run.submit()) == [0], run.told()
    return run


def tensors(run: FaultRun) -> dict[str, bytes]:
    """The bits of every tensor of the last checkpoint, whatever the files that they lie in."""
    checkpoint = read_checkpoint(run.directory.checkpoints / f"step-{STEPS}")
    parts = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer, "extra": checkpoint.extra}
    return {f"{part}/{name}": tensor.numpy().tobytes() for part, held in parts.items() for name, tensor in held.items()}


def test_a_host_of_three_that_loses_its_power_changes_no_bit_of_weights_and_messages(
    host_cluster: Any, undisturbed_units: FaultRun, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_CONF", raising=False)
    run = FaultRun(host_cluster, config, tmp_path / "run")
    (job,) = run.submit()
    with run.held_after(SAVE_STEPS + 2):
        saved = run.saved()
        assert len(run.ranks(NODE)) == 1, "a stage works there"
        run.cluster.kill_node(NODE)
    run.wait_for_restart(job)
    assert run.wait([job]) == [0], run.told()
    assert run.cluster.node_states()[NODE] == "down*"
    (resume,) = run.events("resume")
    assert f"step-{resume['step']}" == saved
    run.assert_ends_as(undisturbed_units)
    (start,) = run.events("start")
    assert start["stages"] == [[unit for unit in UNITS if unit in stage] for stage in PLACEMENT]
    bits = tensors(run)
    assert sum("/message/features/" in name for name in bits) == 5, "one a connection is under way, and all are the same"

    alone = FaultRun(host_cluster, config, tmp_path / "alone")
    run_hpcvideo("train", config, "--run", alone.path, "--set", "method.stages=1", "--set", "method.placement=null")
    one = tensors(alone)
    assert sorted(one) == sorted(bits)
    assert [name for name in one if one[name] != bits[name]] == [], "and those of one process"
