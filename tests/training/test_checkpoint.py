"""Checkpoints: whole or not there, and damage is named."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from hpcvideo.errors import OperationFailed
from hpcvideo.training.checkpoint import Checkpoint, latest_checkpoint, read_checkpoint, write_checkpoint


def checkpoint(step: int, elements: int = 10) -> Checkpoint:
    weights = {"fc.weight": torch.full((elements,), float(step)), "bn.num_batches_tracked": torch.tensor(step)}
    return Checkpoint(step, 7, "digest", weights, {"fc.weight/momentum_buffer": torch.ones(elements)}, {})


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path, size = write_checkpoint(tmp_path, checkpoint(5), keep=2)
    assert latest_checkpoint(tmp_path) == path and size > 80
    stored = read_checkpoint(path)
    assert (stored.step, stored.seed, stored.config_digest, stored.extra) == (5, 7, "digest", {})
    for part in ("weights", "optimizer"):
        for name, tensor in getattr(checkpoint(5), part).items():
            assert torch.equal(getattr(stored, part)[name], tensor)


def test_only_the_newest_are_kept_and_remains_of_kills_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-step-9-1").mkdir()
    (tmp_path / ".discarded-step-1-1").mkdir()
    for step in (3, 6, 9, 12):
        write_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-12", "step-9"]


def test_a_checkpoint_that_latest_does_not_name_yet_is_written_anew(tmp_path: Path) -> None:
    """A kill between the rename and `latest` leaves a whole folder; the run gets there again."""
    write_checkpoint(tmp_path, checkpoint(3), keep=2)
    write_checkpoint(tmp_path, checkpoint(6), keep=2)
    (tmp_path / "latest").write_text("step-3")
    path, _ = write_checkpoint(tmp_path, checkpoint(6), keep=2)
    assert latest_checkpoint(tmp_path) == path


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found_and_named(tmp_path: Path, damage: str) -> None:
    path, _ = write_checkpoint(tmp_path, checkpoint(5), keep=2)
    file = path / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(data if damage == "flip" else data[:-8])
    with pytest.raises(OperationFailed, match=r"step-5: the checkpoint is damaged .*weights\.safetensors"):
        read_checkpoint(path)


def test_a_full_disk_leaves_the_checkpoint_before_in_place(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    ).returncode
    if not mounted:
        pytest.skip("a small tmpfs cannot be mounted here (needs root)")
    try:
        path, _ = write_checkpoint(disk, checkpoint(5), keep=2)
        with pytest.raises(OperationFailed, match="step-6: cannot write the checkpoint: No space left on device"):
            write_checkpoint(disk, checkpoint(6, elements=200_000), keep=2)
        assert latest_checkpoint(disk) == path and read_checkpoint(path).step == 5
        assert sorted(file.name for file in disk.iterdir()) == ["latest", "step-5"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
