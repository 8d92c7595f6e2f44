"""What the tests of annotation files write and compare."""

from __future__ import annotations

import json
from pathlib import Path

from hpcvideo.shards.annotations.read import SourceList


def place(folder: Path, *names: str) -> Path:
    """Files of 7 bytes by their names; a name that ends in `/N` is a frame folder of N frames."""
    folder.mkdir(exist_ok=True)
    for name in names:
        path, _, frames = name.rpartition("/")
        if frames.isdecimal():
            (folder / path).mkdir(parents=True)
            for index in range(int(frames)):
                (folder / path / f"img_{index:05}.jpg").write_bytes(b"x")
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"x" * 7)
    return folder


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def labelled(listed: SourceList) -> dict[str, tuple[str, ...]]:
    return {each.id: tuple(listed.label_names[label] for label in each.labels) for each in listed.sources}
