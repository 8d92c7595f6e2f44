"""`hpcvideo shards submit` on a real Slurm: equal bytes, a build that its time limit interrupts, failures, cancels."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import yaml

from hpcvideo.distributed.environment import child_variables
from hpcvideo.shards.build import BuildOptions, build_shards
from hpcvideo.slurm.job import ShardJob
from hpcvideo.slurm.queue import job_state
from hpcvideo.slurm.script import render_script
from hpcvideo.slurm.site import load_site
from hpcvideo.slurm.submit import submit as submit_script
from tests.conftest import hpcvideo_command, write_frame_folders

pytestmark = [pytest.mark.slurm, pytest.mark.faults]
VIDEOS_PER_SHARD = "3"


@pytest.fixture
def site(cluster: Any, tmp_path: Path) -> Path:
    """The profile of the private cluster, with jobs that may start themselves again."""
    values = load_site("local").model_dump(mode="json", exclude_none=True)
    values |= {"requeue": True, "slurm_conf": str(cluster.slurm_conf)}
    path = tmp_path / "private.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def submit(tmp_path: Path, site: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """`hpcvideo shards submit ... --wait` for 2 nodes x 2 ranks."""
    shape = ("--site", site, "--nodes", "2", "--ranks-per-node", "2", "--run", tmp_path / "job", "--wait")
    variables = child_variables()
    variables.pop("SLURM_CONF", None)
    return subprocess.Popen(
        hpcvideo_command("shards", "submit", *arguments, *shape), env=variables, cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def slow_videos(source: Path, videos: int, frames: int) -> None:
    """Frame folders of one picture, so large that the build takes its time."""
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    jpeg = simplejpeg.encode_jpeg(noise, quality=90)
    (source.parent / "picture.jpg").write_bytes(jpeg)
    for video in range(videos):
        folder = source / "noise" / f"video_{video:03d}"
        folder.mkdir(parents=True)
        for frame in range(frames):
            os.link(source.parent / "picture.jpg", folder / f"{frame:05d}.jpg")


def same_sets(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.glob("*.h5"))
    assert names == sorted(path.name for path in other.glob("*.h5")) and names
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def job_number(tmp_path: Path) -> str:
    (line,) = (tmp_path / "job" / "submissions" / "jobs.jsonl").read_text().splitlines()
    return re.sub(r".*\"job_id\": (\d+).*", r"\1", line)


def log_of(tmp_path: Path) -> str:
    return (tmp_path / "job" / "logs" / f"job-{job_number(tmp_path)}.log").read_text()


def test_a_job_builds_the_bytes_of_a_local_build_and_deletes_an_old_set_when_asked(
    site: Path, tmp_path: Path
) -> None:
    write_frame_folders(tmp_path / "frames", 20, seed=1)
    build_shards(tmp_path / "frames", tmp_path / "alone", options=BuildOptions(videos_per_shard=3))
    build_shards(tmp_path / "frames", tmp_path / "it's a set", options=BuildOptions(videos_per_shard=9, seed=5))
    job = submit(
        tmp_path, site, "frames", "--out", "it's a set", "--videos-per-shard", VIDEOS_PER_SHARD, "--overwrite", "--time", "5"
    )
    output, _ = job.communicate(timeout=180)
    assert job.returncode == 0, output + log_of(tmp_path)
    assert same_sets(tmp_path / "alone", tmp_path / "it's a set")
    assert "ranks       4 (2 x 2)" in log_of(tmp_path)
    assert not list((tmp_path / "job" / "errors").iterdir())
    assert "20 videos" in (tmp_path / "job" / "logs" / "rank-0.log").read_text()


def test_a_build_that_reaches_its_time_limit_starts_itself_again_and_ends_with_equal_bytes(
    site: Path, cluster: Any, tmp_path: Path
) -> None:
    slow_videos(tmp_path / "frames", 48, 30)
    job = submit(tmp_path, site, "frames", "--out", "set", "--videos-per-shard", VIDEOS_PER_SHARD, "--time", "5")
    wait_for(lambda: list((tmp_path / "set").glob("shard-*.h5")), job)
    number = job_number(tmp_path)
    cluster.run("scancel", "--batch", "--signal=USR2", number)  # what Slurm does when the time limit is near
    wait_for(lambda: re.search(r"JobState=PENDING.*\n.* Restarts=1 ", cluster.run("scontrol", "show", "job", number)), job)
    assert not (tmp_path / "set" / "manifest.json").exists(), "it was done before it could be interrupted"
    assert "the job goes on in its next start" in log_of(tmp_path)
    # Slurm lets a requeued job wait two minutes; a start within the second of the requeue fails on the revoked credential.
    time.sleep(2.0)
    cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now")
    output, _ = job.communicate(timeout=180)
    assert job.returncode == 0, output + log_of(tmp_path)
    log = log_of(tmp_path)
    assert log.count("exit code 75, ") == 1 and log.count("exit code 0, ") == 1, "both attempts tell in one log"
    assert "restart 0," in log and "restart 1," in log
    rank_log = (tmp_path / "job" / "logs" / "rank-0.log").read_text()
    assert "stopped by SIGUSR2" in rank_log and "kept from an earlier build" in rank_log
    build_shards(tmp_path / "frames", tmp_path / "alone", options=BuildOptions(videos_per_shard=3))
    assert same_sets(tmp_path / "alone", tmp_path / "set")


def test_a_cancelled_build_does_not_come_back(site: Path, cluster: Any, tmp_path: Path) -> None:
    slow_videos(tmp_path / "frames", 48, 30)
    job = submit(tmp_path, site, "frames", "--out", "set", "--videos-per-shard", VIDEOS_PER_SHARD, "--time", "5")
    wait_for(lambda: list((tmp_path / "set").glob("shard-*.h5")), job)
    number = job_number(tmp_path)
    cluster.run("scancel", number)
    output, _ = job.communicate(timeout=120)
    assert job.returncode != 0 and "CANCELLED" in output
    assert "not the time limit: not started again" in log_of(tmp_path)
    assert " Restarts=0 " in cluster.run("scontrol", "show", "job", number)


def test_a_build_that_got_nowhere_does_not_come_back_for_ever(site: Path, cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "stopped.sh").write_text(
        "#!/bin/bash\ntrap 'exit 75' USR2\n: >up-$SLURM_PROCID\nwhile :; do sleep 0.1; done\n"
    )
    (tmp_path / "stopped.sh").chmod(0o755)
    profile = load_site(str(site))
    stand_in = ShardJob(
        name="nowhere", run_path=tmp_path / "job", nodes=2, ranks_per_node=2, cpus_per_rank=2, time_limit="5",
        command=(str(tmp_path / "stopped.sh"),), working_directory=tmp_path, source=tmp_path / "frames",
        out=tmp_path / "set", build_arguments=("frames",), overwrite=False, again=("the", "same command"),
    )  # fmt: skip
    job = submit_script(render_script(stand_in, profile), tmp_path / "job", profile, "shard")
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("up-*"))) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cluster.run("scancel", "--batch", "--signal=USR2", str(job.job_id))
    while (state := job_state(job.job_id, profile)) is None or state.exit_code is None:
        assert time.monotonic() < deadline, f"it came back: {state}"
        time.sleep(0.2)
    assert (state.state, state.exit_code) == ("FAILED", 75)
    log = (tmp_path / "job" / "logs" / f"job-{job.job_id}.log").read_text()
    assert "nothing was done in this attempt" in log and "to go on: the 'same command'\n" in log


def test_a_build_that_fails_gives_the_job_its_exit_code_and_its_sentence(site: Path, tmp_path: Path) -> None:
    write_frame_folders(tmp_path / "frames", 6, seed=1)
    build_shards(tmp_path / "frames", tmp_path / "set", options=BuildOptions(seed=5))
    job = submit(tmp_path, site, "frames", "--out", "set", "--videos-per-shard", VIDEOS_PER_SHARD, "--time", "5")
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 2, output
    assert re.search(r"rank-\d: hpcvideo: set holds a shard set made .* --overwrite", log_of(tmp_path))
    assert "hpcvideo: set holds a shard set" in output, "--wait tells the end of the log"


def wait_for(condition: Any, job: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
