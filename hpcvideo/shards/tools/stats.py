"""What a set is like as data: classes, lengths, sizes, and how well its shards mix. Only tables are read, no frame."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcvideo.errors import OperationFailed
from hpcvideo.shards.manifest import Manifest, ShardEntry
from hpcvideo.shards.reader import ShardSet
from hpcvideo.shards.tables import ShardTables, load_tables
from hpcvideo.shards.tools.listing import jpeg_bytes


@dataclass(frozen=True)
class SetColumns:
    """Numbers of the V videos of a set, in its order, and what they are counted over.

    frames, bytes (of all its JPEGs), width, height: int64 [V]; seconds (NaN where unknown), fps (0 where unknown), both of
    the source: float64 [V]. shard: int64 [V], the place of its shard in the manifest. label_counts: int64
    [shards, classes], videos a class; class_frames: int64 [classes]. A video of two classes counts in both. actions: seconds
    of each labelled interval, float64 [A]; action_counts: int64 [classes].
    """

    manifest: Manifest
    frames: np.ndarray
    bytes: np.ndarray
    width: np.ndarray
    height: np.ndarray
    seconds: np.ndarray
    fps: np.ndarray
    shard: np.ndarray
    label_counts: np.ndarray
    class_frames: np.ndarray
    actions: np.ndarray
    action_counts: np.ndarray
    unlabelled: int


def read_columns(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> SetColumns:
    """Read the tables of all shards. `progress(done, total)` counts shards.

    Raises InputError where `folder` is no finished set, OperationFailed where a shard is missing or its tables are damaged.
    """
    shards = ShardSet(folder)
    shards.check_files()
    entries = shards.manifest.shards
    classes = len(shards.label_names)
    columns: dict[str, list[np.ndarray]] = {}
    label_counts = np.zeros((len(entries), classes), np.int64)
    class_frames, action_counts = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    unlabelled = 0
    progress(0, len(entries))
    for place, entry in enumerate(entries):
        tables = load_tables(folder / entry.file)
        for name, values in _columns_of(tables, entry, place).items():
            columns.setdefault(name, []).append(values)
        rows, _ = np.nonzero(tables.labels >= 0)
        labels = tables.labels[tables.labels >= 0]
        if labels.max(initial=-1) >= classes or tables.actions["label"].max(initial=-1) >= classes:
            raise OperationFailed(f"{tables.path}: a label is not among the {classes} of the manifest; build the set again")
        label_counts[place] = np.bincount(labels, minlength=classes)
        class_frames += np.bincount(labels, tables.num_frames[rows], minlength=classes).astype(np.int64)
        action_counts += np.bincount(tables.actions["label"], minlength=classes)
        unlabelled += int((tables.labels < 0).all(axis=1).sum())
        progress(place + 1, len(entries))
    whole = {name: np.concatenate(values) for name, values in columns.items()}
    return SetColumns(
        shards.manifest, **whole, label_counts=label_counts, class_frames=class_frames, action_counts=action_counts,
        unlabelled=unlabelled,
    )  # fmt: skip


def _columns_of(tables: ShardTables, entry: ShardEntry, place: int) -> dict[str, np.ndarray]:
    descriptor = os.open(tables.path, os.O_RDONLY)
    try:
        sizes = jpeg_bytes(descriptor, tables)
    finally:
        os.close(descriptor)
    if (len(tables), tables.frames) != (entry.videos, entry.frames):
        raise OperationFailed(f"{tables.path}: is not what the manifest says; run `hpcvideo shards verify`")
    return {
        "frames": tables.num_frames,
        "bytes": sizes,
        "width": tables.width,
        "height": tables.height,
        "seconds": np.where(tables.duration > 0, tables.duration, np.nan),
        "fps": tables.fps,
        "shard": np.full(len(tables), place),
        "actions": tables.actions["end"] - tables.actions["begin"],
    }


def describe_columns(columns: SetColumns) -> dict[str, Any]:
    """The statistics as plain numbers, for JSON. Lengths in frames and seconds, sizes in pixels and bytes.

    Each summary holds min, 5 %, median, mean, 95 % and max. `class_distance` of a shard is half the sum of absolute
    differences between its class shares and the set's (total variation: 0 equal, 1 nothing in common), `expected_distance`
    what as many videos drawn at random would have on average.
    """
    manifest = columns.manifest
    counts = columns.label_counts.sum(axis=0)
    shares = columns.label_counts / np.maximum(1, columns.label_counts.sum(axis=1, keepdims=True))
    overall = counts / max(1, counts.sum())
    sizes = Counter(zip(columns.width.tolist(), columns.height.tolist(), strict=True))
    rates = Counter(np.round(columns.fps, 2).tolist())
    return {
        "videos": len(columns.frames),
        "frames": int(columns.frames.sum()),
        "jpeg_bytes": int(columns.bytes.sum()),
        "classes": {
            "names": len(manifest.label_names),
            "with_videos": int((counts > 0).sum()),
            "videos_a_class": summary(counts[counts > 0]),
            "imbalance": float(counts.max() / counts[counts > 0].min()) if counts.any() else None,
            "unlabelled_videos": columns.unlabelled,
            "each": [
                {"label": name, "videos": int(videos), "frames": int(frames), "actions": int(actions)}
                for name, videos, frames, actions in zip(
                    manifest.label_names, counts, columns.class_frames, columns.action_counts, strict=True
                )
            ],
        },
        "actions": {"count": len(columns.actions), "seconds": summary(columns.actions)},
        "frames_a_video": summary(columns.frames),
        "seconds_a_video": summary(columns.seconds[~np.isnan(columns.seconds)]),
        "videos_of_unknown_seconds": int(np.isnan(columns.seconds).sum()),
        "bytes_a_frame": summary(columns.bytes / np.maximum(1, columns.frames)),
        "bytes_a_video": summary(columns.bytes),
        "pixels": [{"width": width, "height": height, "videos": n} for (width, height), n in sizes.most_common()],
        "fps": [{"fps": rate or None, "videos": n} for rate, n in rates.most_common()],
        "shards": [
            {
                "file": entry.file, "bytes": entry.bytes, "videos": entry.videos, "frames": entry.frames,
                "class_distance": float(np.abs(mine - overall).sum() / 2),
                "expected_distance": expected_distance(overall, int(labels.sum())),
            }
            for entry, mine, labels in zip(manifest.shards, shares, columns.label_counts, strict=True)
        ],
        "quarantined": {
            "count": len(manifest.quarantined),
            "by_reason": dict(Counter(_kind_of(entry.reason) for entry in manifest.quarantined).most_common()),
        },
    }  # fmt: skip


def summary(values: np.ndarray) -> dict[str, float] | None:
    """min, 5 %, median, mean, 95 % and max of some numbers; None of none."""
    if not len(values):
        return None
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    found = {"min": values.min(), "p5": low, "median": median, "mean": values.mean(), "p95": high, "max": values.max()}
    return {name: round(float(value), 4) for name, value in found.items()}


def expected_distance(shares: Sequence[float] | np.ndarray, draws: int) -> float:
    """Mean total variation distance between class shares and those of `draws` videos drawn by them, with replacement.

    Half the sum of E|X - np| / n over classes, X binomial, by De Moivre: 2 m C(n, m) p^m (1-p)^(n-m+1), m = floor(np) + 1.
    """
    total = 0.0
    for share in np.asarray(shares, float):
        if draws < 1 or not 0 < share < 1:
            continue
        m = min(math.floor(draws * share) + 1, draws)
        log = (
            math.log(2 * m) + math.lgamma(draws + 1) - math.lgamma(m + 1) - math.lgamma(draws - m + 1)
            + m * math.log(share) + (draws - m + 1) * math.log1p(-share)
        )  # fmt: skip
        total += math.exp(log) / draws
    return total / 2


def _kind_of(reason: str) -> str:
    """A reason without what is of one video only: "after 28 frames: InvalidDataError: ..." is one kind for any number."""
    words = ["N" if any(letter.isdigit() for letter in word) else word for word in reason.split()]
    return " ".join(words)
