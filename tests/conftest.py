"""A small shard set and a config over it, made once a session from generated frames."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import yaml
from hypothesis import settings

from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment, child_variables, discover, without_launcher
from hpcvideo.distributed.process_group import joined
from hpcvideo.shards.build import BuildOptions, build_shards
from tests.rank_forge import RankForge

CLASSES = ("left", "middle", "right")
LONG = ("training", "slurm", "methods", "cli", "multihost")
"""Folders whose files take long: they come first, so that no worker of pytest-xdist is left alone with one at the end."""

settings.register_profile("hpcvideo", deadline=None)  # a busy machine is no failure
settings.load_profile("hpcvideo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """See LONG."""
    items.sort(key=lambda item: item.path.relative_to(Path(__file__).parent).parts[0] not in LONG)


def write_frame_folders(source: Path, videos: int, seed: int) -> None:
    """A folder a class of frame folders, 32 x 48 pixels, 6 to 14 frames; the class is where the frame is bright."""
    generator = np.random.default_rng(seed)
    for video in range(videos):
        label = video % len(CLASSES)
        folder = source / CLASSES[label] / f"video_{video:03d}"
        folder.mkdir(parents=True)
        for frame in range(6 + video % 9):
            pixels = generator.integers(0, 120, (32, 48, 3), dtype=np.uint8)
            pixels[:, label * 16 : label * 16 + 16] += 120
            (folder / f"{frame:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels, quality=90))


@pytest.fixture(scope="session")
def only_group() -> Iterator[tuple[ProcessEnvironment, Device, dict[str, str]]]:
    """This process as the only rank of a process group, with the variables that tell DeepSpeed so. There is one for all
    tests: DeepSpeed remembers the first group that it meets, and no engine can be made in another one."""
    before = dict(os.environ)
    place = discover({})
    with joined(place) as device:
        told = {name: value for name, value in os.environ.items() if before.get(name) != value}
        os.environ.clear()
        os.environ.update(before)
        yield place, device, told


@pytest.fixture
def lone_rank(
    only_group: tuple[ProcessEnvironment, Device, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> tuple[ProcessEnvironment, Device]:
    """Where methods can be made in this process. The variables are there during a test: they must not reach other's jobs."""
    place, device, told = only_group
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    return place, device


@pytest.fixture(scope="session")
def shard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shard sets `train` (25 videos in 3 shards, 3 classes) and `validation` (11 videos)."""
    folder = tmp_path_factory.mktemp("shards")
    for split, videos in (("train", 25), ("validation", 11)):
        write_frame_folders(folder / f"{split}-frames", videos, seed=videos)
        build_shards(folder / f"{split}-frames", folder / split, options=BuildOptions(videos_per_shard=10))
    return folder


@pytest.fixture
def config_values(shard_folder: Path) -> dict[str, Any]:
    """A config that trains in seconds; tests change what they are about."""
    return {
        "name": "tiny",
        "seed": 3,
        "task": {"name": "classification", "num_classes": 3},
        "method": {"name": "end_to_end"},
        "model": {"name": "tsm_resnet18", "frames": 4, "options": {"width": 8}},
        "data": {
            "train": str(shard_folder / "train"),
            "validation": str(shard_folder / "validation"),
            "size": 24,
            "short_side": 32,
            "flip": False,
            "workers": 1,
            "worker_kind": "thread",  # starts at once
        },
        "recipe": {"global_batch": 8, "steps": 12, "base_lr_per_64_clips": 0.1, "warmup_epochs": 0.5},
        "logging": {"every_steps": 2},
    }


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Write a config's values as YAML into the test's folder."""

    def write(values: dict[str, Any]) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def hpcvideo_command(*arguments: str | Path, ranks: int = 1) -> list[str]:
    """The command line of `hpcvideo ARGUMENTS`, under this environment's mpiexec where there are several ranks."""
    command = [sys.executable, "-m", "hpcvideo", *map(str, arguments)]
    return command if ranks == 1 else [str(Path(sys.executable).with_name("mpiexec")), "-n", str(ranks), *command]


_FORGED = ("train", "evaluate")
_forge: list[RankForge] = []


def run_hpcvideo(
    *arguments: str | Path, ranks: int = 1, check: bool = True, launched: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `hpcvideo ARGUMENTS` with one thread a rank; with `check` a failure fails the test and shows why.

    launched: start new processes also for what is else forked from one that has imported everything (tests.rank_forge).
    """
    variables = without_launcher(child_variables(OMP_NUM_THREADS="1"))
    if arguments[0] in _FORGED and not launched:
        if not _forge:
            _forge.append(RankForge())
            atexit.register(_forge[0].close)
        command = [str(argument) for argument in arguments]
        answer = _forge[0].run(command, ranks, variables, timeout=300)
    else:
        command = hpcvideo_command(*arguments, ranks=ranks)
        answer = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300, check=False)
    if check:
        assert answer.returncode == 0, f"{command}\n{answer.stdout}\n{answer.stderr}"
    return answer


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What tests said by `record_property`, each line once, under its title."""
    said: dict[str, dict[str, None]] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        for title, line in getattr(report, "user_properties", ()):
            said.setdefault(title, {})[str(line)] = None
    for title, lines in said.items():
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)
