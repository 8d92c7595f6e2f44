"""`stats`: the numbers that plain h5py and NumPy give, from tables alone, and pictures that show them."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import cv2
import h5py
import numpy as np
import pytest

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards.format import Quarantined
from hpcvideo.shards.tools.stats import describe_columns, expected_distance, read_columns, summary
from hpcvideo.shards.tools.stats_plot import write_stats_picture

from ..command import run_shards
from .stored_sets import content_of, small_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A set of 30 videos."""
    return small_set(tmp_path_factory.mktemp("stats") / "set", videos=30, per_shard=8)


def test_the_numbers_are_those_of_plain_h5py(folder):
    facts = describe_columns(read_columns(folder))
    content = content_of(folder)
    names = ("a", "b", "c")
    lengths = np.concatenate([h5py.File(path)["frames/length"][:] for path in sorted(folder.glob("*.h5"))])
    assert (facts["videos"], facts["frames"], facts["jpeg_bytes"]) == (30, 180, int(lengths.sum(dtype=int)))
    counts = {name: sum(name in labels for labels, *_ in content.values()) for name in names}
    each = facts["classes"]["each"]
    assert {entry["label"]: entry["videos"] for entry in each} == counts
    assert {entry["label"]: entry["frames"] for entry in each} == {name: 6 * count for name, count in counts.items()}
    intervals = [interval for _, found, *_ in content.values() for interval in found]
    assert sum(entry["actions"] for entry in each) == facts["actions"]["count"] == len(intervals) > 0
    assert facts["actions"]["seconds"]["median"] == 0.75
    assert facts["classes"]["imbalance"] == max(counts.values()) / min(counts.values())
    assert facts["classes"]["unlabelled_videos"] == sum(not labels for labels, *_ in content.values()) > 0
    seconds = [others[3] for _, _, others, *_ in content.values() if others[3]]
    assert facts["videos_of_unknown_seconds"] == 30 - len(seconds) > 0
    assert facts["seconds_a_video"]["mean"] == pytest.approx(np.mean(seconds), abs=1e-4)
    assert facts["seconds_a_video"]["p95"] == pytest.approx(np.quantile(seconds, 0.95), abs=1e-4)
    a_video = [lengths[start : start + 6].sum() for start in range(0, 180, 6)]
    assert facts["bytes_a_video"]["max"] == max(a_video)
    assert facts["bytes_a_frame"]["median"] == pytest.approx(np.median(a_video) / 6, abs=1e-3)
    assert sorted(tuple(size.values()) for size in facts["pixels"]) == [(24, 16, 15), (24, 18, 15)]
    assert {rate["fps"]: rate["videos"] for rate in facts["fps"]} == {25.0: 25, None: 5}
    assert facts["quarantined"] == {"count": 2, "by_reason": {"no frame decodes": 2}}


def test_a_shards_distance_is_half_the_differences_of_class_shares(folder):
    facts = describe_columns(read_columns(folder))
    content = content_of(folder)
    overall = np.array([sum(name in labels for labels, *_ in content.values()) for name in "abc"], float)
    for entry, path in zip(facts["shards"], sorted(folder.glob("*.h5")), strict=True):
        with h5py.File(path) as shard:
            mine = np.zeros(3)
            for video_id in shard["videos/id"].asstr()[:]:
                for label in content[video_id][0]:
                    mine["abc".index(label)] += 1
        expected = np.abs(mine / mine.sum() - overall / overall.sum()).sum() / 2
        assert entry["class_distance"] == pytest.approx(expected)
        assert entry["expected_distance"] == pytest.approx(expected_distance(overall / overall.sum(), int(mine.sum())))


@pytest.mark.parametrize(("shares", "draws"), [((0.5, 0.5), 1), ((0.2, 0.3, 0.5), 7), ((0.05, 0.95), 30), ((1.0, 0.0), 4)])
def test_the_expected_distance_is_the_mean_over_all_draws(shares, draws):
    mean = 0.0
    for counts in itertools.product(range(draws + 1), repeat=len(shares)):
        if sum(counts) == draws:
            chance = float(math.factorial(draws))
            for count, share in zip(counts, shares, strict=True):
                chance *= share**count / math.factorial(count)
            mean += chance * sum(abs(count / draws - share) for count, share in zip(counts, shares, strict=True)) / 2
    assert expected_distance(shares, draws) == pytest.approx(mean, abs=1e-12)


def test_no_pixel_is_read(folder, monkeypatch):
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: read.append(size) or pread(descriptor, size, offset))
    read_columns(folder)
    assert sum(read) == 4 * 180  # the lengths of all frames


def test_reasons_are_counted_without_what_is_of_one_video(folder):
    columns = read_columns(folder)
    entries = [Quarantined(f"{n}.mp4", f"after {n} frames: InvalidDataError: bad") for n in (3, 28)]
    object.__setattr__(columns.manifest, "quarantined", (*entries, Quarantined("x", "no video stream")))
    assert describe_columns(columns)["quarantined"]["by_reason"] == {
        "after N frames: InvalidDataError: bad": 2, "no video stream": 1,
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".svg", ".png", ".html"])
def test_a_picture_is_drawn_the_same_each_time(folder, tmp_path, suffix):
    ended = run_shards("stats", folder, "--plot", tmp_path / f"a{suffix}", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["plot"] == str(tmp_path / f"a{suffix}")
    write_stats_picture(read_columns(folder), str(folder), tmp_path / f"b{suffix}")
    content = (tmp_path / f"a{suffix}").read_bytes()
    assert content == (tmp_path / f"b{suffix}").read_bytes()
    if suffix == ".png":
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (858, 1560, 3)
        return
    text = content.decode()
    svg = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    words = " ".join("".join(element.itertext()) for element in svg.iter() if element.tag.endswith("text"))
    for expected in ("30 videos, 180 frames", "2 left out", "kB a frame", "MB", "frames stored", "24 x 16", "distance (0"):
        assert expected in words
    if suffix == ".html":
        assert "2: no frame decodes" in text
        assert not re.search(r"(src|href)=.http", text)


def test_a_picture_of_many_classes_names_none_and_labels_are_no_formulas(tmp_path):
    names = [f"$class_{{{n}}}$ <b>" for n in range(40)]
    folder = small_set(tmp_path / "set", names=names, videos=9)
    write_stats_picture(read_columns(folder), "a set", tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert "class, by number of videos" in text
    assert "$class_{7}$ &lt;b&gt;" in text
    few = small_set(tmp_path / "few", names=names[:3], videos=9)
    write_stats_picture(read_columns(few), "a set", tmp_path / "b.svg")
    assert "$class_{1}$ &lt;b&gt;" in (tmp_path / "b.svg").read_text()


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(folder, tmp_path):
    ended = run_shards("stats", folder, "--plot", tmp_path / "a.gif")
    assert ended.returncode == 2
    assert "a.gif: a picture of statistics is written as .svg, .png or .html" in ended.stderr
    with pytest.raises(OperationFailed, match="No such file or directory"):
        write_stats_picture(read_columns(folder), "a set", tmp_path / "nowhere/a.svg")
    with pytest.raises(InputError, match=r"no manifest\.json"):
        read_columns(tmp_path)


def test_stats_print_a_table(folder):
    shown = run_shards("stats", folder)
    assert shown.returncode == 0
    for words in ("frames a video", "kB a frame", "3 of 3 labels have videos", "24x16: 15", "labelled ones, median 0.75 s",
                  "no frame decodes (2)", "a random draw"):  # fmt: skip
        assert words in " ".join(shown.stdout.split())


def test_a_summary_of_nothing_is_none():
    assert summary(np.array([])) is None
    assert summary(np.array([2, 2])) == {"min": 2, "p5": 2, "median": 2, "mean": 2, "p95": 2, "max": 2}
