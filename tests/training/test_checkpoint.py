"""Checkpoints: whole or not there, and damage is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpcvideo.errors import OperationFailed
from hpcvideo.training.checkpoint import Checkpoint, latest_checkpoint, read_checkpoint, write_checkpoint
from tests.small_disk import small_disk

ROOT = Path(__file__).resolve().parents[2]


def checkpoint(step: int, elements: int = 10) -> Checkpoint:
    weights = {"fc.weight": torch.full((elements,), float(step)), "bn.num_batches_tracked": torch.tensor(step)}
    data = {"plan": "p", "samples": 3, "label_names": ["a", "b"]}
    return Checkpoint(step, 7, "digest", data, weights, {"fc.weight/momentum_buffer": torch.ones(elements)}, {})


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


def test_steps_of_an_abandoned_future_never_push_out_what_is_written_now(tmp_path: Path) -> None:
    """`latest` was set back to an older one by hand, or a kill came before it; what came after it is not the newest."""
    for step in (6, 9, 12):
        write_checkpoint(tmp_path, checkpoint(step), keep=3)
    (tmp_path / "latest").write_text("step-6")
    path, _ = write_checkpoint(tmp_path, checkpoint(7), keep=2)
    assert latest_checkpoint(tmp_path) == path
    assert sorted(file.name for file in tmp_path.iterdir()) == ["latest", "step-6", "step-7"]


KILLED_AT_CALL = """
import os, sys
from pathlib import Path
import shutil
from tests.training.test_checkpoint import checkpoint
from hpcvideo.training.checkpoint import write_checkpoint

from tests.small_disk import small_disk
folder, fatal = Path(sys.argv[1]), int(sys.argv[2])
calls = 0
def deadly(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == fatal:
            os._exit(9)
        return function(*arguments, **options)
    return call
os.fsync = deadly(os.fsync)
Path.rename = deadly(Path.rename)
Path.mkdir = deadly(Path.mkdir)
shutil.rmtree = deadly(shutil.rmtree)
write_checkpoint(folder, checkpoint(6), keep=1)
"""


def test_a_kill_at_any_file_operation_leaves_a_whole_latest(tmp_path: Path) -> None:
    """The writer is ended at its first, second, ... fsync, rename, mkdir or rmtree until it survives them all."""
    for fatal in range(1, 60):
        folder = tmp_path / str(fatal)
        write_checkpoint(folder, checkpoint(3), keep=1)
        command = [sys.executable, "-c", KILLED_AT_CALL, str(folder), str(fatal)]
        code = subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode
        path = latest_checkpoint(folder)
        assert path is not None and read_checkpoint(path).step in (3, 6)
        again, _ = write_checkpoint(folder, checkpoint(6), keep=1)
        assert sorted(file.name for file in folder.iterdir()) == ["latest", "step-6"]
        assert read_checkpoint(again).step == 6
        if code == 0:
            break
    assert code == 0 and fatal > 10


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
    with small_disk(tmp_path / "disk", 256 << 10) as disk:
        path, _ = write_checkpoint(disk, checkpoint(5), keep=2)
        with pytest.raises(OperationFailed, match="step-6: cannot write the checkpoint: No space left on device"):
            write_checkpoint(disk, checkpoint(6, elements=200_000), keep=2)
        assert latest_checkpoint(disk) == path and read_checkpoint(path).step == 5
        assert sorted(file.name for file in disk.iterdir()) == ["latest", "step-5"]
