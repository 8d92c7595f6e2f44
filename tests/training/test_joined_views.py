"""The rows of a video together, however the views are cut into batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.training.joined_views import JoinedViews


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 7), st.randoms())
def test_rows_come_by_video_whatever_the_batches(counts: list[int], batch: int, draws: Any) -> None:
    rows = [(sample, view) for sample, count in enumerate(counts) for view in range(count)]
    weights = [float(draws.random() < 0.7) for _ in rows]
    padding = -len(rows) % batch
    rows, weights = rows + [(0, 0)] * padding, weights + [0.0] * padding
    joined = JoinedViews(np.array(counts))
    found: list[list[tuple[int, float]]] = []
    for begin in range(0, len(rows), batch):
        part = slice(begin, begin + batch)
        samples, views = torch.tensor(rows[part]).T
        entries = {"samples": samples, "views": views, "weights": torch.tensor(weights[part]), "clips": None,
                   "ids": [str(sample) for sample, _ in rows[part]]}  # fmt: skip
        outputs = torch.arange(begin, begin + len(samples)).float()[:, None]
        if (answer := joined.add(outputs, entries)) is not None:
            values, kept = answer
            assert kept["ids"] == [str(sample) for sample in kept["samples"].tolist()] and "clips" not in kept
            videos: list[list[tuple[int, float]]] = [[] for _ in range(int(kept["videos"].max()) + 1)]
            for value, weight, video in zip(values[:, 0], kept["weights"], kept["videos"], strict=True):
                videos[int(video)].append((int(value), float(weight)))
            found += videos
    place = 0
    for video, count in zip(found[: len(counts)], counts, strict=True):
        real = [at for at in range(place, place + count) if weights[at]]
        assert [at for at, _ in video] == (real or [place])
        assert sum(weight for _, weight in video) == pytest.approx(float(bool(real)))
        place += count
    assert all(weight == 0 for video in found[len(counts) :] for _, weight in video), "padding counts nothing"
