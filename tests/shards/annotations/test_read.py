"""Lists, class folders and label maps; each wrong one ends in a sentence that says where and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.label_map import read_label_names
from hpcvideo.shards.annotations.read import read_sources

from ..command import run_shards


def sources_and_names(*arguments):
    listed = read_sources(*arguments)
    return listed.sources, listed.label_names


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name in ("run/a.mp4", "run/b.mkv", "jump/c.webm", "jump/frames/img_1.jpg", "run/notes.txt", "jump/.hidden.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 7)
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_folder_a_class_names_the_labels(source):
    sources, names = sources_and_names(source, None, None)
    assert names == ("jump", "run")
    assert {(entry.id, entry.labels, entry.is_folder, entry.bytes) for entry in sources} == {
        ("jump/c.webm", (0,), False, 7),
        ("jump/frames", (0,), True, 7),
        ("run/a.mp4", (1,), False, 7),
        ("run/b.mkv", (1,), False, 7),
    }


@pytest.mark.parametrize("separator", [",", "\t"])
def test_lists_are_read_in_either_form_with_other_columns_in_any_order(source, tmp_path, separator):
    lines = [["label", "split", "path"], ["walk", "train", "run/a.mp4"], ["hop", "val", "./jump/c.webm"]]
    listed = write(tmp_path / "list", "\ufeff" + "\r\n".join(separator.join(line) for line in lines) + "\r\n\r\n")
    sources, names = sources_and_names(source, listed, None)
    assert names == ("hop", "walk")
    assert [(entry.id, entry.labels) for entry in sources] == [("run/a.mp4", (1,)), ("jump/c.webm", (0,))]


def test_integer_labels_are_the_indices(source, tmp_path):
    sources, names = sources_and_names(source, write(tmp_path / "l.csv", "path,label\nrun/a.mp4,10\nrun/b.mkv,2\n"), None)
    assert [entry.labels for entry in sources] == [(10,), (2,)]
    assert names == tuple(str(index) for index in range(11))


def test_a_label_file_or_another_set_fixes_the_map(source, tmp_path, shard_set):
    listed = write(tmp_path / "l.csv", "path,label\nrun/a.mp4,run\nrun/b.mkv,walk\n")
    names_file = write(tmp_path / "names.txt", "walk\nrun\nsit\n")
    sources, names = sources_and_names(source, listed, names_file)
    assert ([entry.labels for entry in sources], names) == ([(1,), (0,)], ("walk", "run", "sit"))
    sources, names = sources_and_names(source, listed, shard_set / "manifest.json")
    assert ([entry.labels for entry in sources], names) == ([(1,), (2,)], ("jump", "run", "walk"))
    assert read_label_names(shard_set) == names


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the annotation file is empty"),
        ("path,label\n", "the list is empty"),
        ("file,label\nrun/a.mp4,1\n", r"line 1: no column 'path' in file, label"),
        ("path,class\nrun/a.mp4,1\n", r"line 1: no column 'label'"),
        ("path,label\nrun/a.mp4,1\nrun/gone.mp4,1\n", r"line 3: .*run/gone\.mp4: No such file"),
        ("path,label\nrun/a.mp4,1\n./run/a.mp4,2\n", r"line 3: 'run/a\.mp4' is listed already at .*line 2"),
        ("path,label\n../outside.mp4,1\n", r"line 2: path '\.\./outside\.mp4' is not below SOURCE"),
        ("path,label\n/etc/passwd,1\n", r"line 2: path '/etc/passwd' is not below SOURCE"),
        ("path,label\nrun/a.mp4,\n", r"line 2: no label for 'run/a\.mp4'"),
        ("path,label\nrun/a,b.mp4,1\n", r"line 2: 3 columns, the header has 2"),
        ("path,label\nrun/a.mp4,999999999999\n", r"line 2: label 999999999999 is no class index"),
    ],
)
def test_a_wrong_list_says_where_and_what(source, tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        read_sources(source, write(tmp_path / "list.csv", text), None)


def test_an_unknown_label_is_named_with_its_line(source, tmp_path):
    listed = write(tmp_path / "l.csv", "path,label\nrun/a.mp4,run\nrun/b.mkv,fly\n")
    with pytest.raises(InputError, match=r"l\.csv, line 3: label 'fly' is not among the 1 of .*names\.txt; correct it"):
        read_sources(source, listed, write(tmp_path / "names.txt", "run\n"))


@pytest.mark.parametrize(("text", "sentence"), [("", "is empty"), ("a\nb\na\n", "'a' stands there twice")])
def test_a_wrong_label_file_is_refused(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        read_label_names(write(tmp_path / "names.txt", text))


def test_files_that_are_not_there_or_not_text_are_refused(source, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_sources(tmp_path / "nowhere", None, None)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_sources(source, tmp_path / "nowhere.csv", None)
    (tmp_path / "binary.csv").write_bytes(b"path,label\n\xff\xfe\n")
    with pytest.raises(InputError, match="not UTF-8"):
        read_sources(source, tmp_path / "binary.csv", None)
    (source / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: neither videos nor frame folders"):
        read_sources(source, None, None)
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="no class folders"):
        read_sources(tmp_path / "bare", None, None)


def test_the_command_ends_with_code_2_and_one_sentence(source, tmp_path):
    listed = write(tmp_path / "list.csv", "path,label\nrun/gone.mp4,1\n")
    for ranks in (None, 2):
        ended = run_shards("build", source, "--annotations", listed, "--out", tmp_path / "out", ranks=ranks)
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
        assert ended.stderr.startswith(f"hpcvideo: {listed}, line 2: ")
        assert not (tmp_path / "out").exists()


def test_an_unreadable_manifest_is_no_label_map(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": "something else"}))
    with pytest.raises(InputError, match="not the manifest of a shard set"):
        read_label_names(tmp_path / "manifest.json")
