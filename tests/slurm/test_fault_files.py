"""Full disks and damaged files in mid-training. What was whole before counts, and nothing bad is trained on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcvideo.data.sample_order import GlobalOrder
from hpcvideo.shards import ShardSet
from tests.conftest import run_hpcvideo
from tests.slurm.fault_run import SAVE_STEPS, STEPS, FaultRun, is_pending, tell, wait_until

pytestmark = pytest.mark.slurm
VIDEO = 4
"""The one that gets damaged, by its number in the set."""


@pytest.fixture
def run_on_small_disk(fault_run: FaultRun, run_disk: Path) -> Iterator[FaultRun]:
    """All of its run directory lies on that disk."""
    folder = run_disk / "full"
    yield FaultRun(fault_run.cluster, fault_run.config, folder / "run")
    shutil.rmtree(folder)


@pytest.mark.faults
def test_a_full_disk_costs_checkpoints_and_the_run_goes_on_when_there_is_room(
    run_on_small_disk: FaultRun, undisturbed: FaultRun, run_disk: Path
) -> None:
    run = run_on_small_disk
    (job,) = run.submit()
    filler = run_disk / "filler"
    with run.held_after(SAVE_STEPS + 2):
        folder = run.directory.checkpoints
        half = sum(file.stat().st_size for file in (folder / run.saved()).iterdir()) // 2
        disk = os.statvfs(run_disk)
        filler.write_bytes(bytes(disk.f_bavail * disk.f_frsize - half))
    assert run.wait([job]) == [1], run.told()
    assert run.steps() == STEPS, "it goes on while an older checkpoint is whole"
    *_, warning = run.events("warning")
    assert "cannot write the checkpoint: rank" in warning["sentence"] and "No space left on device" in warning["sentence"]
    assert f"step-{STEPS}: cannot write the checkpoint" in run.log(job) and "free space" in run.log(job)
    saved = run.events("checkpoint")[-1]["step"]
    assert run.saved() == f"step-{saved}" != f"step-{STEPS}"
    assert not run.events("end") and not list(folder.glob(f"*step-{STEPS}")), "nothing unfinished takes room"
    filler.unlink()
    assert run.wait(run.submit()) == [0], run.told()
    (resume,) = run.events("resume")
    assert resume["step"] == saved
    run.assert_ends_as(undisturbed)


@pytest.mark.faults
def test_a_truncated_checkpoint_is_set_aside_and_the_one_before_counts(fault_run: FaultRun, undisturbed: FaultRun) -> None:
    first, second = fault_run.submit("--chain", 2)
    with fault_run.held_after(2 * SAVE_STEPS + 2) as ranks:
        newest = fault_run.saved()
        file = fault_run.directory.checkpoints / newest / "optimizer.safetensors"
        os.truncate(file, file.stat().st_size // 2)
        tell(ranks, signal.SIGKILL)
    assert fault_run.wait([first, second]) == [137, 0], fault_run.told()
    (resume,) = fault_run.events("resume")
    assert f"step-{resume['step'] + SAVE_STEPS}" == newest
    (warning,) = fault_run.events("warning")
    assert f"{newest} is damaged (optimizer.safetensors does not have the digest" in warning["sentence"]
    assert f"set aside as damaged-{newest}, and the run goes on from step-{resume['step']}" in warning["sentence"]
    assert (fault_run.directory.checkpoints / f"damaged-{newest}").is_dir()
    fault_run.assert_ends_as(undisturbed)


@pytest.fixture
def shards(shard_folder: Path, tmp_path: Path) -> Path:
    """A copy of the training set, to be damaged."""
    folder = tmp_path / "set"
    shutil.copytree(shard_folder / "train", folder)
    return folder


def flip_bytes(folder: Path) -> tuple[Path, bytes]:
    """Flip a bit of one byte in each frame of the video, in place; gives the shard's file, and what it held."""
    reader = ShardSet(folder)
    shard = reader.shard_of(VIDEO)
    before = shard.read_bytes()
    with shard.open("r+b") as file:
        for jpeg in reader.read_jpegs(VIDEO, range(reader.video(VIDEO).num_frames)):
            place = before.index(jpeg) + len(jpeg) // 2
            file.seek(place)
            file.write(bytes([before[place] ^ 0x10]))
    return shard, before


@pytest.mark.faults
def test_flipped_bytes_in_a_shard_stop_the_run_which_goes_on_when_they_are_mended(
    fault_run: FaultRun, undisturbed: FaultRun, shards: Path
) -> None:
    """data.on_bad_clip: stop, as it is without a word in the config."""
    (job,) = fault_run.submit("--set", f"data.train={shards}")
    with fault_run.held_after(SAVE_STEPS + 2):
        shard, sound = flip_bytes(shards)
    assert fault_run.wait([job]) == [1], fault_run.told()
    video = ShardSet(shards).video(VIDEO).id
    (cause,) = [line for line in fault_run.log(job).splitlines() if "checksum" in line]
    assert shard.name in cause and repr(video) in cause and "shards verify" in cause
    found = run_hpcvideo("shards", "verify", shards, check=False)
    assert found.returncode == 1 and video in found.stdout + found.stderr
    shard.write_bytes(sound)
    assert fault_run.wait(fault_run.submit("--set", f"data.train={shards}")) == [0], fault_run.told()
    (resume,) = fault_run.events("resume")
    assert resume["step"] >= SAVE_STEPS
    fault_run.assert_ends_as(undisturbed)


def steps_that_meet(bad: int, samples: int, seed: int) -> list[int]:
    """The steps in whose batch of 12 a sample is drawn, once for each time: as itself, or in place of itself."""
    order, steps = GlobalOrder(samples, seed), []
    for step in range(STEPS):
        for epoch, sample in zip(*order.batch(step, 12, slice(0, 12)), strict=True):
            drawn, attempt = int(sample), 0
            while drawn == bad:
                steps.append(step + 1)
                attempt += 1
                drawn = order.replacement(int(epoch), int(sample), attempt)
    return steps


def told_steps(run: FaultRun) -> list[int]:
    """The steps in which the damaged video was met, by whichever rank."""
    return [event["step"] for event in run.events("bad_clip")]


@pytest.mark.faults
def test_fewer_and_more_nodes_go_on_and_meet_each_sample_as_often_as_the_order_says(
    fault_run: FaultRun, shards: Path
) -> None:
    """3, then 2, then 4 nodes. A damaged video that is skipped marks where its sample was met, by whichever rank."""
    shard, _ = flip_bytes(shards)
    settings = ("--set", f"data.train={shards}", "--set", "data.on_bad_clip=skip")
    for nodes, step in ((3, SAVE_STEPS + 2), (2, 3 * SAVE_STEPS + 2)):
        (job,) = fault_run.submit(*settings, nodes=nodes)
        with fault_run.held_after(step) as ranks:
            assert len(ranks) == nodes
            fault_run.cancel()
            wait_until(lambda held=ranks: all(is_pending(pid, signal.SIGTERM) for pid in held), "the word to stop")
        assert fault_run.wait([job]) == [75], fault_run.told()
    assert fault_run.wait(fault_run.submit(*settings, nodes=4)) == [0], fault_run.told()
    stops: list[Any] = [stop["step"] for stop in fault_run.events("preemption")]
    resumes = fault_run.events("resume")
    assert [(resume["world_size"], resume["step"]) for resume in resumes] == list(zip((2, 4), stops, strict=True))
    (end,) = fault_run.events("end")
    assert (end["step"], end["samples"], end["reason"]) == (STEPS, STEPS * 12, "finished")
    video = ShardSet(shards).video(VIDEO).id
    assert {(event["shard"], event["video"]) for event in fault_run.events("bad_clip")} == {(shard.name, video)}
    expected = steps_that_meet(VIDEO, samples=25, seed=3)
    assert len(expected) >= 19, "every epoch has it"
    # The step in which the ranks agree to stop has no line of its own in the log.
    assert [step for step in told_steps(fault_run) if step not in stops] == [step for step in expected if step not in stops]
