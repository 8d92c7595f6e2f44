"""Checkpoints on disk: whole or not there, readable by anybody, and damage is named."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from hpcvideo.errors import OperationFailed
from hpcvideo.methods.protocol import Holders
from hpcvideo.training import checkpoint_layout
from hpcvideo.training.checkpoint import clean_up, latest_checkpoint, read_checkpoint
from hpcvideo.training.checkpoint_buffer import HostBuffer
from hpcvideo.training.checkpoint_layout import PlannedFile, plan_files
from tests.small_disk import small_disk
from tests.training.stored import example, store

pytestmark = pytest.mark.forks

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = store(tmp_path, example(5))
    assert latest_checkpoint(tmp_path) == path
    stored, expected = read_checkpoint(path), example(5)
    assert stored.facts == expected.facts and stored.extra == {}
    for part in ("weights", "optimizer"):
        assert getattr(stored, part).keys() == getattr(expected, part).keys()
        for name, tensor in getattr(expected, part).items():
            assert torch.equal(getattr(stored, part)[name], tensor)


def test_a_file_is_what_the_safetensors_library_reads_whatever_the_type_shape_and_layout(tmp_path: Path) -> None:
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    kinds += [torch.int8, torch.uint8, torch.bool]
    tensors = {f"a{number}": torch.arange(6).reshape(2, 3).to(kind) for number, kind in enumerate(kinds)}
    tensors |= {f"odd{number}": torch.ones(3, dtype=kind) for number, kind in enumerate(kinds)}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 4), "transposed": torch.arange(12.0).reshape(3, 4).T}
    tensors["channels last"] = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    tensors["ein Name mit Ümlaut \"und\" '$(so)'"] = torch.rand(4)
    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    buffer = HostBuffer()
    names = sorted(tensors)
    files = [
        PlannedFile("weights", name, tuple(part), sum(sizes[one] for one in part), 0)
        for name, part in (("first", names[:7]), ("second", names[7:]))
    ]
    for values in (tensors, {name: tensor.flip(0) if tensor.ndim else -tensor for name, tensor in tensors.items()}):
        buffer.capture(files, {"weights": values})  # the second time into the same memory
        written = buffer.write(tmp_path)
        read: dict[str, torch.Tensor] = {}
        for file in written:
            read |= safetensors.torch.load_file(tmp_path / file.name)
        assert read.keys() == tensors.keys()
        for name, tensor in values.items():
            assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor), name
        for file in written:
            content = (tmp_path / file.name).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
            assert int.from_bytes(content[:8], "little") % 8 == 0, "tensors begin aligned"


RESNET_50 = {f"layer{number}.weight": 256 * (1 + number * 300) for number in range(60)}


def plan_of(ranks: int, sizes: dict[str, dict[str, int]]) -> list[PlannedFile]:
    return plan_files(sizes, dict.fromkeys(sizes, Holders(range(ranks))))


def test_files_do_not_depend_on_the_ranks_and_each_tensor_lies_in_one() -> None:
    sizes = {"weights": RESNET_50, "optimizer": {f"{name}/m": size for name, size in RESNET_50.items()}, "extra": {}}
    expected = None
    for ranks in (1, 2, 6, 12, 1536):
        files = plan_of(ranks, sizes)
        layout = sorted((file.part, file.name, file.tensors, file.size) for file in files)
        assert expected in (None, layout)
        expected = layout
        for part, named in sizes.items():
            listed = [name for file in files if file.part == part for name in file.tensors]
            assert sorted(listed) == sorted(named)
            assert sum(file.size for file in files if file.part == part) == sum(named.values())
    assert expected is not None
    large = [size for part, _, _, size in expected if part == "weights"]
    assert len(large) == -(-sum(RESNET_50.values()) // checkpoint_layout.FILE_BYTES) > 3
    assert max(large) < 1.3 * min(large)


def test_all_of_few_ranks_write_nearly_alike_and_of_many_a_few_that_lie_far_apart() -> None:
    sizes = {"weights": RESNET_50, "optimizer": {f"{name}/m": size for name, size in RESNET_50.items()}, "extra": {}}
    total = sum(sum(named.values()) for named in sizes.values())
    for ranks in (2, 3, 6):
        loads = [sum(file.size for file in plan_of(ranks, sizes) if file.writer == rank) for rank in range(ranks)]
        assert sum(loads) == total and max(loads) < 1.35 * total / ranks
    files = plan_of(1536, sizes)
    writers = sorted(file.writer for file in files)
    assert len(set(writers)) == len(files) < 30
    assert min(right - left for left, right in itertools.pairwise(writers)) > 6, "no two on one node of six"


def test_a_huge_part_has_a_bounded_number_of_files() -> None:
    sizes = {"weights": {f"w{number}": 1 << 30 for number in range(500)}}
    files = plan_of(1536, sizes)
    assert len(files) == checkpoint_layout.MOST_FILES and len({file.writer for file in files}) == len(files)


def test_stages_name_and_deal_their_files_without_knowing_of_each_other() -> None:
    first = plan_files({"weights": {"a": 8}}, {"weights": Holders((0, 2), "stage-0")})
    second = plan_files({"weights": {"b": 8}}, {"weights": Holders((1, 3), "stage-1")})
    assert [(file.name, file.writer) for file in (*first, *second)] == [
        ("weights-stage-0.safetensors", 0), ("weights-stage-1.safetensors", 1),
    ]  # fmt: skip
    # ZeRO: rank 0 alone has the optimizer's state; the others know nothing of it and still agree on the rest.
    others = Holders(range(4))
    whole = plan_files({"weights": {"a": 8}, "optimizer": {"m": 8}}, {"weights": others, "optimizer": Holders((0,))})
    rest = plan_files({"weights": {"a": 8}}, {"weights": others})
    assert [file for file in whole if file.part == "weights"] == rest


def test_only_the_newest_are_kept_and_remains_of_kills_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-step-9").mkdir()
    (tmp_path / ".discarded-step-1").mkdir()
    clean_up(tmp_path)
    assert list(tmp_path.iterdir()) == []
    for step in (3, 6, 9, 12):
        store(tmp_path, example(step), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-12", "step-9"]


def test_a_checkpoint_that_latest_does_not_name_yet_is_written_anew(tmp_path: Path) -> None:
    """A kill between the rename and `latest` leaves a whole folder; the run gets there again."""
    store(tmp_path, example(3))
    store(tmp_path, example(6))
    (tmp_path / "latest").write_text("step-3")
    path = store(tmp_path, example(6))
    assert latest_checkpoint(tmp_path) == path


def test_steps_of_an_abandoned_future_never_push_out_what_is_written_now(tmp_path: Path) -> None:
    """`latest` was set back to an older one by hand, or a kill came before it; what came after it is not the newest."""
    for step in (6, 9, 12):
        store(tmp_path, example(step), keep=3)
    (tmp_path / "latest").write_text("step-6")
    path = store(tmp_path, example(7), keep=2)
    assert latest_checkpoint(tmp_path) == path
    assert sorted(file.name for file in tmp_path.iterdir()) == ["latest", "step-6", "step-7"]


KILLED_AT_CALL = """
import os, sys
from pathlib import Path
import shutil
from tests.training.stored import example, store

folder, fatal = Path(sys.argv[1]), 0
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
os.write = deadly(os.write)
Path.rename = deadly(Path.rename)
Path.mkdir = deadly(Path.mkdir)
shutil.rmtree = deadly(shutil.rmtree)
for fatal_now in range(1, 60):
    child = os.fork()
    if child == 0:
        fatal = fatal_now
        store(folder / str(fatal), example(int(sys.argv[2])), keep=1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(fatal_now, code, flush=True)
    if code == 0:
        break
"""


@pytest.mark.parametrize("step", [6, 3], ids=["the next one", "the same step once more"])
def test_a_kill_at_any_file_operation_leaves_a_whole_latest(tmp_path: Path, step: int) -> None:
    """The writer is ended at its first, second, ... write, fsync, rename, mkdir or rmtree until it survives them all."""
    for fatal in range(1, 60):
        store(tmp_path / str(fatal), example(3), keep=1)
    command = [sys.executable, "-c", KILLED_AT_CALL, str(tmp_path), str(step)]
    answer = subprocess.run(command, cwd=ROOT, check=True, timeout=100, capture_output=True, text=True)
    codes = dict(tuple(map(int, line.split())) for line in answer.stdout.splitlines())
    assert len(codes) > 12 and list(codes.values()) == [9] * (len(codes) - 1) + [0]
    for fatal in codes:
        folder = tmp_path / str(fatal)
        clean_up(folder)
        path = latest_checkpoint(folder)
        assert path is not None and read_checkpoint(path).facts.step in (3, step)
        again = store(folder, example(step), keep=1)
        assert sorted(file.name for file in folder.iterdir()) == ["latest", f"step-{step}"]
        assert read_checkpoint(again).facts.step == step


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found_and_named(tmp_path: Path, damage: str) -> None:
    path = store(tmp_path, example(5))
    file = path / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(data if damage == "flip" else data[:-8])
    with pytest.raises(OperationFailed, match=r"step-5: the checkpoint is damaged .*weights\.safetensors"):
        read_checkpoint(path)


def test_a_state_that_names_files_outside_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path, example(5))
    state = json.loads((path / "state.json").read_text())
    state["files"]["weights"]["../step-4/weights.safetensors"] = state["files"]["weights"].pop("weights.safetensors")
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(OperationFailed, match="no file of the checkpoint"):
        read_checkpoint(path)


def test_checkpoints_of_the_first_version_are_still_read(tmp_path: Path) -> None:
    """One file a part, whose digests `state.json` lists by part."""
    path = store(tmp_path, example(5))
    state = json.loads((path / "state.json").read_text())
    state["sha256"] = {part: files[f"{part}.safetensors"]["sha256"] for part, files in state.pop("files").items()}
    del state["notes"]
    (path / "state.json").write_text(json.dumps({**state, "version": 1}))
    stored = read_checkpoint(path)
    assert torch.equal(stored.weights["fc.weight"], torch.full((10,), 5.0)) and stored.facts.notes == {}
    (path / "state.json").write_text(json.dumps({**state, "version": 3}))
    with pytest.raises(OperationFailed, match="version 3 is not readable"):
        read_checkpoint(path)


def test_a_full_disk_leaves_the_checkpoint_before_in_place(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256 << 10) as disk:
        path = store(disk, example(5))
        with pytest.raises(OSError, match="No space left on device"):
            store(disk, example(6, elements=200_000))
        clean_up(disk)
        assert latest_checkpoint(disk) == path and read_checkpoint(path).facts.step == 5
        assert sorted(file.name for file in disk.iterdir()) == ["latest", "step-5"]
