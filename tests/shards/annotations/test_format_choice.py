"""Which format a file has, what no format takes, and a list as long as Kinetics."""

from __future__ import annotations

import tarfile
import time

import pytest

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.formats import FORMATS
from hpcvideo.shards.annotations.read import read_sources

from .written import place, write


def test_unknown_and_uncertain_formats_list_the_known_ones(tmp_path):
    source = place(tmp_path / "videos", "a.avi")
    with pytest.raises(InputError, match=f"--format csv: no such annotation format; there are auto, {', '.join(FORMATS)}"):
        read_sources(source, write(tmp_path / "a.csv", "path,label\na.avi,1\n"), None, format="csv")
    for name, text, sentence in (
        ("trainlist01.txt", "a.avi 1\n", "may be ucf101 or list"),
        ("words.txt", "what is\nthis\n", "is of no annotation format"),
        ("other.json", "{}", "is of no annotation format"),
    ):
        with pytest.raises(InputError, match=rf"{sentence}.*--format: plain \(CSV.*thumos \(folder"):
            read_sources(source, write(tmp_path / name, text), None)
    with pytest.raises(InputError, match="is of no annotation format"):
        read_sources(source, source, None)


def test_one_wrong_line_does_not_hide_the_format_and_is_named(tmp_path):
    source = place(tmp_path / "videos", "a.avi", "b.avi", "1/3", "2/3")
    with pytest.raises(InputError, match=r"list\.txt, line 2: "):
        read_sources(source, write(tmp_path / "list.txt", "a.avi 1\nb.avi one\nb.avi 2\n"), None)
    with pytest.raises(InputError, match=r"jester\.csv, line 2: "):
        read_sources(source, write(tmp_path / "jester.csv", "1;Swiping Left\nSwiping Right\n2;Swiping Right\n"), None)


def test_what_is_no_list_of_ucf101_is_told_so(tmp_path):
    listed = write(tmp_path / "a.csv", "path,label\na.avi,1\n")
    with pytest.raises(InputError, match=r"a\.csv: is no list of UCF101: those are called trainlistNN\.txt"):
        read_sources(place(tmp_path / "videos", "a.avi"), listed, None, format="ucf101")


def test_a_source_one_folder_too_high_is_pointed_out(tmp_path):
    place(tmp_path / "top", "data/run/a.mp4", "data/jump/b.mp4")
    with pytest.raises(InputError, match=r"is SOURCE one folder too high\? try .*/top/data"):
        read_sources(tmp_path / "top", None, None)
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(tmp_path / "top", "top")
    with pytest.raises(InputError, match=r"all\.tar/top/data: .*the top folders of a tar file are the classes"):
        read_sources(tmp_path / "all.tar", None, None)


def test_parts_that_a_format_does_not_have_are_refused(tmp_path):
    source = place(tmp_path / "videos", "a.avi")
    listed = write(tmp_path / "a.csv", "path,label\na.avi,1\n")
    with pytest.raises(InputError, match="--subset val: annotation format plain has no subsets"):
        read_sources(source, listed, None, subset="val")
    with pytest.raises(InputError, match="--split 1: annotation format plain has no numbered splits"):
        read_sources(source, listed, None, split=1)
    with pytest.raises(InputError, match="pass it with --annotations"):
        read_sources(source, None, None, format="kinetics")


def test_names_that_would_break_lists_are_refused(tmp_path):
    source = place(tmp_path / "videos", "a\nb.mp4")
    with pytest.raises(InputError, match="has a line break"):
        read_sources(source, write(tmp_path / "a.csv", 'path,label\n"a\nb.mp4",1\n'), None)
    (tmp_path / "classes" / "run").mkdir(parents=True)
    (tmp_path / "classes" / "run" / "\udcff.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match="not UTF-8; rename"):
        read_sources(tmp_path / "classes", None, None)


def test_a_quarter_million_kinetics_lines_are_read_and_found(tmp_path, capsys):
    """Kinetics-400's training part has 240,436 clips; the time is printed, not judged."""
    classes, each = 100, 2404
    source = tmp_path / "videos"
    lines = ["label,youtube_id,time_start,time_end,split"]
    for label in range(classes):
        (source / f"class {label:03}").mkdir(parents=True)
        for clip in range(each):
            lines.append(f"class {label:03},{label:05}{clip:06},0,10,train")
        (source / f"class {label:03}" / f"{label:05}000000_000000_000010.mp4").write_bytes(b"x")
    csv_file = write(tmp_path / "train.csv", "\n".join(lines))
    began = time.perf_counter()
    listed = read_sources(source, csv_file, None, missing="skip")
    seconds = time.perf_counter() - began
    assert (len(listed.sources), len(listed.skipped)) == (classes, classes * (each - 1))
    assert listed.label_names[-1] == "class 099"
    with capsys.disabled():
        print(f"\n{len(lines) - 1} lines of Kinetics read and looked for in {seconds:.1f} s")
