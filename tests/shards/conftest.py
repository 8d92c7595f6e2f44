"""Generated videos and their shard set, and the codec-zoo where it is at hand."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcvideo.shards.build import BuildOptions, build_shards
from hpcvideo.shards.records import StoredFrame

from .generated import moving_square, write_video


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with list.csv: nine videos of 8 to 24 frames, 96x64 to 128x80, in three classes."""
    folder = tmp_path_factory.mktemp("videos")
    lines = ["path,label"]
    for index in range(9):
        name = f"clip{index}.mp4"
        write_video(folder / name, moving_square(8 + 2 * index, 96 + 16 * (index % 3), 64 + 8 * (index % 3), index))
        lines.append(f"{name},{('jump', 'run', 'walk')[index % 3]}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def shard_set(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of `videos` in three shards; tests that damage it copy it."""
    out = tmp_path_factory.mktemp("set")
    build_shards(videos, out, videos / "list.csv", options=BuildOptions(videos_per_shard=3))
    return out


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of real files of many codecs."""
    for parent in Path(__file__).resolve().parents:
        if (folder := parent / "shared" / "data" / "codec-zoo").is_dir():
            return folder
    pytest.skip("no shared/data/codec-zoo beside the checkout")


@pytest.fixture(scope="session")
def zoo_facts(zoo: Path) -> dict[str, dict[str, str]]:
    """files.csv of the codec-zoo by file name."""
    with (zoo / "files.csv").open() as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


@pytest.fixture
def collect() -> Iterator[tuple[list[bytes], Callable[[StoredFrame], None]]]:
    """A list and the `store` that fills it with JPEGs."""
    stored: list[bytes] = []
    yield stored, lambda frame: stored.append(frame.jpeg)
