"""Small shard sets written without a video, with everything in them that a set can hold; and what plain h5py sees in one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import simplejpeg

from hpcvideo.shards.content import ShardContent
from hpcvideo.shards.format import Encoding, Quarantined
from hpcvideo.shards.manifest import Manifest, write_manifest
from hpcvideo.shards.records import Action, StoredFrame, VideoRecord
from hpcvideo.shards.writer import store_shard


def small_set(
    folder: Path,
    seed: int = 0,
    videos: int = 12,
    frames: int = 6,
    stored_of: int = 1,
    names: Sequence[str] = ("a", "b", "c"),
    per_shard: int = 4,
    encoding: Encoding = Encoding(),  # noqa: B008
    ids: str = "c/{}.mp4",
    noise: int = 0,
) -> Path:
    """Write a set: labels none, one or two a video, some labelled intervals, frame folders without a clock, two left out.

    Every `stored_of`-th frame of a source of 25 frames/s is stored. noise: bytes that each JPEG is longer by.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    entries, left_out = [], []
    for index in range(math.ceil(videos / per_shard)):
        rows = range(index * per_shard, min(videos, (index + 1) * per_shard))
        records = [_record(row, random, names, ids) for row in rows]
        broken = [Quarantined(f"c/broken{seed}-{index}.mp4", "no frame decodes")] if index < 2 else []
        left_out += broken

        def fill(content: ShardContent, records: list[VideoRecord] = records, broken: list[Quarantined] = broken) -> None:
            for record in records:
                content.add(record, _frames(record, random, frames, stored_of, noise))
            for entry in broken:
                content.leave_out(entry)

        here = [*(record.id for record in records), *(entry.source for entry in broken)]
        plan = hashlib.sha256(f"{seed} {index}".encode()).hexdigest()
        entries.append(store_shard(folder, index, plan, encoding.describe(), fill, here).entry)
    manifest = Manifest(tuple(entries), tuple(names), {"source": "made", "seed": seed}, tuple(left_out), f"p{seed}", "0")
    write_manifest(folder, manifest)
    return folder


def _record(row: int, random: np.random.Generator, names: Sequence[str], ids: str) -> VideoRecord:
    labels = tuple(sorted(random.choice(len(names), row % 3 if row % 5 else 1, replace=False).tolist()))
    actions = (Action(1, 0.5, 1.25),) if row % 4 == 1 else ()
    is_folder = row % 7 == 0
    video_id = ids.format(row).removesuffix(".mp4") if is_folder else ids.format(row)
    fps, duration = (0.0, 0.0) if is_folder else (25.0, 10.0 + row)
    digest = hashlib.sha256(str(row).encode()).hexdigest()
    return VideoRecord(video_id, labels, actions, 24, 16 + 2 * (row % 2), fps, duration, digest)


def _frames(record: VideoRecord, random: np.random.Generator, frames: int, stored_of: int, noise: int) -> list[StoredFrame]:
    made = []
    for frame in range(frames):
        image = random.integers(0, 255, (record.height, record.width, 3), dtype=np.uint8)
        jpeg = simplejpeg.encode_jpeg(image, 85) + random.bytes(noise)
        made.append(StoredFrame(jpeg, frame * stored_of, frame * stored_of / 25 if record.fps else math.nan))
    return made


def content_of(folder: Path) -> dict[str, tuple[object, ...]]:
    """Of each video its label names, intervals, facts and the SHA-256 of each frame, read with h5py and nothing of ours."""
    names = json.loads((folder / "manifest.json").read_text())["label_names"]
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.glob("shard-*.h5")):
        raw = path.read_bytes()
        with h5py.File(path) as shard:
            videos = {name: values[:] for name, values in shard["videos"].items()}
            offsets, lengths = shard["frames/offset"][:].tolist(), shard["frames/length"][:].tolist()
            actions = {name: values[:].tolist() for name, values in shard["actions"].items()} if "actions" in shard else {}
            for row, video_id in enumerate(shard["videos/id"].asstr()[:]):
                labels = videos["labels"][row] if "labels" in videos else videos["label"][row : row + 1]
                first = int(videos["first_frame"][row])
                frames = range(first, first + int(videos["num_frames"][row]))
                intervals = [
                    (names[actions["label"][place]], actions["begin"][place], actions["end"][place])
                    for place, video in enumerate(actions.get("video", [])) if video == row
                ]  # fmt: skip
                assert video_id not in found
                found[video_id] = (
                    tuple(names[label] for label in labels if label >= 0),
                    tuple(intervals),
                    tuple(videos[name][row].item() for name in ("width", "height", "fps", "duration", "source_sha256")),
                    tuple(hashlib.sha256(raw[offsets[at] : offsets[at] + lengths[at]]).hexdigest() for at in frames),
                    videos["source_frame"][frames.start : frames.stop].tobytes(),
                    videos["source_seconds"][frames.start : frames.stop].tobytes(),
                )
    return found


def left_out_of(folder: Path) -> list[tuple[str, str]]:
    """What the manifest lists as left out, sorted."""
    listed = json.loads((folder / "manifest.json").read_text())["quarantined"]
    return sorted((entry["source"], entry["reason"]) for entry in listed)
