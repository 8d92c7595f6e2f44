"""Inputs below SOURCE: on disk as today, in tar files as if they were unpacked there, and refusals by their sentence."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from simplejpeg import encode_jpeg

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.read import read_sources
from hpcvideo.shards.build import build_shards
from hpcvideo.shards.inputs.frame_folder import count_frames, frame_files, natural_order
from hpcvideo.shards.inputs.tar_frames import tar_members
from hpcvideo.shards.inputs.tree import Tree, video_stem

CONTENT = {
    "run/a.mp4": b"run a" * 200,
    "run/clip/img_2.jpg": b"frame 2",
    "jump/b.webm": b"jump b" * 100,
    "run/clip/img_10.jpg": b"frame ten",
    'jump/it\'s ü \\ "c".mkv': b"odd",
    "run/clip/img_1.jpg": b"frame 1",
    "run/notes.txt": b"no video",
}


def unpack(folder: Path) -> Path:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pack(path: Path, content: dict[str, bytes], prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def content_of(source) -> list[tuple[str, bytes]]:
    """What an input's bytes are, read as a build would."""
    if not source.inside:
        paths = frame_files(source.path) if source.is_folder else [source.path]
        return [(path.name if source.is_folder else "", path.read_bytes()) for path in paths]
    data = source.path.read_bytes()
    if source.is_folder:
        return [(each.name, data[each.offset : each.offset + each.size]) for each in tar_members(source.path, source.inside)]
    return [("", data[source.inside.begin : source.inside.end])]


def facts(listed) -> list[tuple]:
    return [(each.id, each.labels, each.bytes, each.is_folder, content_of(each)) for each in listed.sources]


@pytest.mark.parametrize("layout", ["one tar file", "tar in the folder", "a tar a class", "half on disk"])
def test_tar_files_give_the_same_inputs_as_the_unpacked_folder(tmp_path, layout):
    expected = read_sources(unpack(tmp_path / "plain"), None, None)
    source = tmp_path / "source"
    if layout == "one tar file":
        source = pack(tmp_path / "source.tar", CONTENT, "./")
    elif layout == "tar in the folder":
        pack(source / "all.tar", CONTENT)
    elif layout == "a tar a class":
        for label in ("run", "jump"):
            inner = {name.partition("/")[2]: data for name, data in CONTENT.items() if name.startswith(label)}
            pack(source / label / "videos.tar", inner)
    else:
        pack(source / "part.tar", {name: data for name, data in CONTENT.items() if "clip" in name or "jump" in name})
        (source / "run").mkdir()
        (source / "run" / "a.mp4").write_bytes(CONTENT["run/a.mp4"])
    found = read_sources(source, None, None)
    assert facts(found) == facts(expected)
    assert found.label_names == expected.label_names == ("jump", "run")
    assert len(found.sources) == 4
    listed = tmp_path / "list.csv"
    listed.write_text("path,label\nrun/clip,7\nrun/a.mp4,3\n")
    assert facts(read_sources(source, listed, None)) == facts(read_sources(tmp_path / "plain", listed, None))


def test_a_member_is_also_found_through_its_tar_file(tmp_path):
    pack(tmp_path / "deep" / "x.tar", CONTENT)
    tree = Tree(tmp_path)
    names = ["deep/x.tar/run/a.mp4", "deep/run/a.mp4", "deep/x.tar/run/clip", "deep/x.tar/run/none.mp4", "x.tar/run/a.mp4"]
    found = tree.find_all(names, names)
    assert [each.bytes if each else None for each in found] == [1000, 1000, 23, None, None]
    assert found[0] == found[1]
    assert sorted(tree.children("deep")) == ["jump", "run"]
    assert tree.children("deep/x.tar") == tree.children("deep")
    assert tree.stems("deep/run") == {"a": ["a.mp4"], "clip": ["clip"]}


def test_a_tar_file_of_frames_is_a_frame_folder_of_its_own_name(tmp_path):
    frames = {f"img_{index}.jpg": bytes([index]) * 9 for index in range(1, 12)}
    pack(tmp_path / "run" / "clip.tar", frames)
    (tmp_path / "run" / "other.mp4").write_bytes(b"x")
    found = read_sources(tmp_path, None, None).sources
    assert [(each.id, each.is_folder, each.bytes) for each in found] == [
        ("run/clip.tar", True, 99),
        ("run/other.mp4", False, 1),
    ]
    assert content_of(found[0]) == sorted(frames.items(), key=lambda frame: natural_order(frame[0]))


def test_files_on_disk_go_before_members(tmp_path):
    pack(tmp_path / "old.tar", {"run/a.mp4": b"packed"})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.mp4").write_bytes(b"on disk!")
    (found,) = read_sources(tmp_path, None, None).sources
    assert (found.inside, found.bytes) == (None, 8)


def test_a_list_of_files_on_disk_opens_no_tar_file_and_lists_no_folder(tmp_path, monkeypatch):
    unpack(tmp_path)
    (tmp_path / "broken.tar").write_bytes(b"no tar file at all")
    listed = tmp_path / "list.csv"
    listed.write_text("path,label\nrun/a.mp4,1\njump/b.webm,0\n")
    monkeypatch.setattr(os, "scandir", None)
    assert len(read_sources(tmp_path, listed, None).sources) == 2


def test_a_name_in_two_tar_files_must_be_told_apart(tmp_path):
    for name in ("x.tar", "y.tar"):
        pack(tmp_path / name, {"run/a.mp4": name.encode()})
    listed = tmp_path / "list.csv"
    listed.write_text("path,label\nrun/a.mp4,1\n")
    with pytest.raises(
        InputError, match=r"list\.csv, line 2: 'run/a\.mp4' lies in .*x\.tar and in .*y\.tar; name the tar file"
    ):
        read_sources(tmp_path, listed, None)
    listed.write_text("path,label\ny.tar/run/a.mp4,1\n")
    (found,) = read_sources(tmp_path, listed, None).sources
    assert content_of(found) == [("", b"y.tar")]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar.zst"])
def test_compressed_tar_files_are_refused_with_what_to_do(tmp_path, suffix):
    packed = tmp_path / f"x{suffix}"
    packed.write_bytes(b"\x1f\x8b")
    for line in (f"x{suffix}", f"x{suffix}/run/a.mp4", "run/a.mp4"):
        listed = tmp_path / "list.csv"
        listed.write_text(f"path,label\n{line},1\n")
        with pytest.raises(InputError, match=rf"line 2: .*x\{suffix} is compressed.*decompress it first"):
            read_sources(tmp_path, listed, None)
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="decompress it first"):
        read_sources(tmp_path, None, None)
    with pytest.raises(InputError, match="decompress it first"):
        read_sources(packed, None, None)


def test_links_in_a_tar_file_are_refused_where_they_are_wanted_and_only_there(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind in (
            ("run/a.mp4", tarfile.LNKTYPE),
            ("run/clip/1.jpg", tarfile.SYMTYPE),
            ("run/b.mp4", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "elsewhere"
            tar.addfile(info)
    tree = Tree(tmp_path)
    assert tree.find_all(["run/b.mp4"], ["line 1"])[0].bytes == 0
    for name, refused in (("run/a.mp4", "run/a.mp4"), ("run/clip", "run/clip/1.jpg")):
        with pytest.raises(InputError, match=rf"^line 1: .*x\.tar: '{refused}' is a link to another file there; pack it as"):
            tree.find_all([name], ["line 1"])


def test_a_damaged_tar_file_is_named_with_the_line_that_needs_it(tmp_path):
    path = pack(tmp_path / "x.tar", CONTENT)
    path.write_bytes(path.read_bytes()[:2000])
    listed = tmp_path / "list.csv"
    listed.write_text("path,label\nrun/a.mp4,1\n")
    with pytest.raises(InputError, match=r"line 2: .*x\.tar: has no end mark"):
        read_sources(tmp_path, listed, None)


def test_sizes_of_long_frame_folders_are_estimated_and_of_short_ones_exact(tmp_path):
    for index in range(16):
        (tmp_path / f"{index}.jpg").write_bytes(b"x" * index)
    (tmp_path / "notes.txt").write_bytes(b"x" * 1000)
    assert count_frames(tmp_path) == (16, sum(range(16)))
    for index in range(16, 300):
        (tmp_path / f"{index}.jpg").write_bytes(b"x" * 100)
    frames, size = count_frames(tmp_path)
    assert frames == 300
    assert 0.8 < size / (sum(range(16)) + 284 * 100) < 1.25


def test_only_suffixes_of_videos_make_a_stem():
    assert [video_stem(name) for name in ("a.b.MP4", "x/y.webm", "a.jpg", "mp4", ".mp4")] == ["a.b", "x/y", None, None, None]


def test_shards_built_from_a_tar_file_are_those_of_the_unpacked_folder_to_the_byte(tmp_path):
    content = {
        f"{label}/clip{clip}/img_{index}.jpg": encode_jpeg(np.full((32, 48, 3), 9 * index + clip, np.uint8))
        for index in range(11)  # frames of all clips lie interleaved in the tar file
        for label in ("jump", "run")
        for clip in range(2)
    }
    for name, data in content.items():
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(data)
    pack(tmp_path / "packed" / "all.tar", content, "./")
    results = [build_shards(tmp_path / source, tmp_path / f"{source}-out") for source in ("plain", "packed")]
    assert [(result.videos, result.frames) for result in results] == [(4, 44), (4, 44)]
    plain, packed = ((result.folder / "shard-00000.h5").read_bytes() for result in results)
    assert plain == packed
