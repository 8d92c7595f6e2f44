"""Headers of real tar files, against the standard library's reader, and each kind of damage by its sentence."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcvideo.shards.inputs.source import TarPlace
from hpcvideo.shards.inputs.tar_frames import tar_members
from hpcvideo.shards.inputs.tar_headers import BrokenTar, read_headers

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
PART = st.text(st.characters(exclude_characters="/\0\n\r", exclude_categories=("Cs",)), min_size=1, max_size=60)
NAMES = st.lists(PART.filter(lambda part: part not in (".", "..")), min_size=1, max_size=4).map("/".join)


def write_tar(path: Path, members: dict[str, bytes], tar_format: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=tar_format) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=st.dictionaries(NAMES, st.binary(max_size=1500), max_size=6), tar_format=st.sampled_from(["gnu", "pax"]))
def test_any_members_are_read_as_the_standard_library_reads_them(tmp_path, members, tar_format):
    path = write_tar(tmp_path / "any.tar", members, FORMATS[tar_format])
    with tarfile.open(path) as tar:
        expected = [(each.name.rstrip("/"), each.offset, each.offset_data, each.size) for each in tar.getmembers()]
    found = list(read_headers(path))
    assert [(each.name, each.header, each.begin, each.size) for each in found] == expected
    content = path.read_bytes()
    assert {each.name: content[each.begin : each.begin + each.size] for each in found} == members


@pytest.mark.parametrize("tar_format", FORMATS)
def test_names_with_quotes_spaces_backslashes_and_long_ones_survive(tmp_path, tar_format):
    names = ['a b/it\'s "x" \\ y.mp4', "ü/視頻.mp4", "x" * 90 + "/" + "y" * 90 + ".mp4"]
    names += [] if tar_format == "ustar" else ["z" * 240 + "/" + "w" * 240]
    path = write_tar(tmp_path / "a.tar", dict.fromkeys(names, b"123"), FORMATS[tar_format])
    assert [each.name for each in read_headers(path)] == names


def test_gnu_tar_itself_packs_what_is_read(tmp_path):
    (tmp_path / "in" / "run").mkdir(parents=True)
    (tmp_path / "in" / "run" / "a.mp4").write_bytes(b"x" * 700)
    (tmp_path / "in" / "run" / "link.mp4").symlink_to("a.mp4")
    os.link(tmp_path / "in" / "run" / "a.mp4", tmp_path / "in" / "run" / "b.mp4")
    subprocess.run(["tar", "-C", tmp_path / "in", "-cf", tmp_path / "a.tar", "--sort=name", "."], check=True)
    found = [(each.name, each.kind, each.size) for each in read_headers(tmp_path / "a.tar")]
    assert found == [("", "folder", 0), ("run", "folder", 0), ("run/a.mp4", "file", 700), ("run/b.mp4", "link", 0),
                     ("run/link.mp4", "link", 0)]  # fmt: skip


def test_sparse_files_are_told_and_stepped_over(tmp_path):
    with (tmp_path / "holes.mp4").open("wb") as file:
        for place in range(0, 60 << 20, 1 << 20):  # more holes than the first header's map takes
            file.seek(place)
            file.write(b"x" * 4096)
    (tmp_path / "b.mp4").write_bytes(b"b" * 10)
    for name in ("gnu", "posix"):
        archive = tmp_path / f"{name}.tar"
        subprocess.run(["tar", "-C", tmp_path, f"--format={name}", "-Scf", archive, "holes.mp4", "b.mp4"], check=True)
        assert [(each.name, each.kind) for each in read_headers(archive)] == [("holes.mp4", "sparse"), ("b.mp4", "file")]
        assert archive.stat().st_size < 1 << 20


def test_sizes_beyond_eight_gibibytes_are_read(tmp_path):
    size = 9 << 30
    for name, tar_format in (("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        info = tarfile.TarInfo("large.mp4")
        info.size = size
        head = info.tobuf(tar_format)
        with (tmp_path / f"{name}.tar").open("wb") as file:
            file.write(head)
            file.truncate(len(head) + size + 1024)  # a hole takes no space
        (member,) = read_headers(tmp_path / f"{name}.tar")
        assert (member.begin, member.size) == (len(head), size)


def damaged(content: bytes, kind: str) -> bytes:
    return {
        "cut in a video": content[:1000],
        "cut in a header": content[: 512 + 1024 + 100],
        "no end mark": content[: 2 * (512 + 1024)],
        "damaged header": content[: 512 + 1024 + 10] + b"\xff" + content[512 + 1024 + 11 :],
        "no tar": b"RIFF" * 1000,
        "gzip": gzip.compress(content),
        "joined": content + content,
        "empty": b"",
    }[kind]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("cut in a video", r"cut short: 'a\.mp4' ends at byte 1512 of 1000"),
        ("cut in a header", "no end mark: it was cut short at byte 1636"),
        ("no end mark", "no end mark: it was cut short at byte 3072"),
        ("damaged header", "damaged: no header stands at byte 1536"),
        ("no tar", "is no tar file"),
        ("gzip", r"compressed \(gzip\); decompress it first"),
        ("joined", "goes on behind its end mark"),
        ("empty", "is no tar file"),
    ],
)
def test_damage_ends_in_a_sentence_and_never_in_fewer_members(tmp_path, kind, sentence):
    path = write_tar(tmp_path / "a.tar", {"a.mp4": b"a" * 1000, "b.mp4": b"b" * 1000})
    path.write_bytes(damaged(path.read_bytes(), kind))
    with pytest.raises(BrokenTar, match=sentence):
        list(read_headers(path))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("/etc/a.mp4", "would lie outside"), ("x/../../a.mp4", "would lie outside"), ("..", "would lie outside"),
     ("a\nb.mp4", "line break"), ("a\udcffb.mp4", "not UTF-8")],
)  # fmt: skip
def test_names_that_lead_outside_or_break_lists_are_refused(tmp_path, name, sentence):
    info = tarfile.TarInfo(name)
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + bytes(1024))
    with pytest.raises(BrokenTar, match=sentence):
        list(read_headers(tmp_path / "a.tar"))


def test_frames_of_a_folder_come_in_natural_order_also_when_packed_among_others(tmp_path):
    members = {}
    for index in (10, 9, 1, 2):
        members[f"./one/img_{index}.jpg"] = b"one" + bytes([index])
        members[f"two/img_{index}.JPEG"] = b"two" + bytes([index])
        members[f"one/inner/img_{index}.jpg"] = b"inner"
    members |= {"one/notes.txt": b"no frame", "one/.hidden.jpg": b"no frame"}
    path = write_tar(tmp_path / "a.tar", members)
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("one/img_2.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"new"))
    content = path.read_bytes()
    frames = tar_members(path, TarPlace("one", 0, list(read_headers(path))[-1].end))
    assert [frame.name for frame in frames] == ["img_1.jpg", "img_2.jpg", "img_9.jpg", "img_10.jpg"]
    assert [content[frame.offset : frame.offset + frame.size] for frame in frames] == [b"one\1", b"new", b"one\t", b"one\n"]


def test_a_frame_that_is_a_link_is_refused(tmp_path):
    info = tarfile.TarInfo("one/img_1.jpg")
    info.type, info.linkname = tarfile.LNKTYPE, "two/img_1.jpg"
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(BrokenTar, match=r"holds the frame 'one/img_1\.jpg' as a link"):
        tar_members(tmp_path / "a.tar", TarPlace("one", 0, 512))


def test_a_tar_file_that_shrank_since_it_was_listed_is_told(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"one/1.jpg": b"a"})
    with pytest.raises(BrokenTar, match="ends at byte 1024 of the 9999999"):
        tar_members(path, TarPlace("one", 0, 9_999_999))
