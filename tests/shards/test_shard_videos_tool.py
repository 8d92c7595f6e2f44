"""tools/shard_videos.py: the same bytes as the command, at low priority, alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

from hpcvideo.distributed.environment import child_variables, without_launcher
from hpcvideo.shards.build import BuildOptions, build_shards
from tests.conftest import write_frame_folders

TOOL = Path(__file__).resolve().parents[2] / "tools" / "shard_videos.py"


def start(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(TOOL), *map(str, arguments)], env={**without_launcher(child_variables()), **variables},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_it_builds_the_bytes_of_the_command_at_low_priority(tmp_path: Path) -> None:
    write_frame_folders(tmp_path / "frames", 12, seed=1)
    build_shards(tmp_path / "frames", tmp_path / "alone", options=BuildOptions(videos_per_shard=5))
    process = start(tmp_path / "frames", "--out", tmp_path / "set", "--videos-per-shard", "5", "--nice", "12")
    seen: set[tuple[int, int]] = set()
    while process.poll() is None:
        if not (tmp_path / "set").exists():
            time.sleep(0.002)
            continue
        try:
            found = psutil.Process(process.pid)
            priorities = found.nice(), found.ionice().value
            if found.memory_info().rss == 0:
                break  # it is leaving: memory is given back first, then the disk's priority
            seen.add(priorities)
        except psutil.Error:
            break
        time.sleep(0.01)
    output, errors = process.communicate()
    assert process.returncode == 0 and "12 videos" in output, errors
    assert seen == {(12, 7)}, "by the time it writes it is polite"
    names = sorted(path.name for path in (tmp_path / "alone").glob("*.h5"))
    assert len(names) == 3
    assert all((tmp_path / "set" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes() for name in names)


def test_it_refuses_to_be_one_of_many_and_tells_bad_input_in_a_sentence(tmp_path: Path) -> None:
    for arguments, variables, sentence in (
        ((tmp_path, "--out", tmp_path / "set"), {"PMI_SIZE": "2"}, "use `hpcvideo shards build`"),
        (("--nice", "77", tmp_path), {}, "--nice 77: a number from 0 to 19"),
        ((tmp_path / "nowhere", "--out", tmp_path / "set"), {}, "nowhere"),
    ):
        process = start(*arguments, **variables)
        _, errors = process.communicate()
        assert process.returncode == 2 and sentence in errors and "Traceback" not in errors
