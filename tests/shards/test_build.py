"""Whole builds: the same bytes however they come about, and nothing half-written taken for whole."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest
import simplejpeg

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards import ShardSet
from hpcvideo.shards import format as shard_format
from hpcvideo.shards.build import BuildOptions, build_shards
from hpcvideo.shards.encode_shard import Decoding, write_shards
from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs.choice import segment_centres
from hpcvideo.shards.inputs.decode import encode_video
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.plan import PlannedShard
from hpcvideo.shards.tables import load_tables

from .command import run_shards
from .generated import files_of, moving_square, source_of, write_video


def test_a_frame_by_pread_is_the_h5py_slice_and_the_encoders_output(videos, shard_set):
    checked = 0
    for path in sorted(shard_set.glob("*.h5")):
        with h5py.File(path) as shard, path.open("rb") as raw:
            base = {name: data.id.get_offset() for name, data in shard["segments"].items()}
            for row, video_id in enumerate(shard["videos/id"].asstr()[:]):
                encoded: list[bytes] = []
                encode_video(source_of(videos / video_id), Encoding(), lambda frame, to=encoded: to.append(frame.jpeg))
                first, count = int(shard["videos/first_frame"][row]), int(shard["videos/num_frames"][row])
                assert count == len(encoded)
                assert shard["videos/source_frame"][first : first + count].tolist() == list(range(count))
                for frame in range(count):
                    offset = int(shard["frames/offset"][first + frame])
                    length = int(shard["frames/length"][first + frame])
                    by_pread = os.pread(raw.fileno(), length, offset)
                    name = max((name for name in base if base[name] <= offset), key=base.get)
                    sliced = shard["segments"][name][offset - base[name] : offset - base[name] + length]
                    assert by_pread == sliced.tobytes() == encoded[frame]
                    checked += 1
    assert checked == sum(8 + 2 * index for index in range(9))


def test_the_file_says_what_it_is(shard_set):
    with h5py.File(shard_set / "shard-00000.h5") as shard:
        assert (shard.attrs["format"], shard.attrs["version"], shard.attrs["complete"]) == (b"hpcvideo-shard", 1, 1)
        assert json.loads(shard.attrs["encoder"])["quality"] == 85
        assert len(shard.attrs["plan"]) == 64
        datasets: list[h5py.Dataset] = []
        shard.visititems(lambda name, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        assert all(dataset.chunks is None and dataset.compression is None for dataset in datasets)
        assert all(data.id.get_offset() % 4096 == 0 for data in shard["segments"].values())
        dtypes = {name: shard[name].dtype.str for name in ("frames/offset", "frames/length", "frames/crc32")}
        assert dtypes == {"frames/offset": "<u8", "frames/length": "<u4", "frames/crc32": "<u4"}
        assert (shard["videos/label"].dtype, "labels" in shard["videos"]) == (np.int32, False)


def test_the_example_in_the_format_description_reads_a_frame(shard_set, tmp_path, monkeypatch):
    shards = ShardSet(shard_set)
    shutil.copy(shard_set / "shard-00000.h5", tmp_path)
    monkeypatch.chdir(tmp_path)
    example = textwrap.dedent(shard_format.__doc__[shard_format.__doc__.index("    import h5py") :])
    exec(example.replace("archery/a.mp4", shards.video(1).id))
    assert (tmp_path / "frame.jpg").read_bytes() == shards.read_jpegs(1, [7])[0]


def test_the_bytes_are_the_same_for_1_2_and_3_ranks_and_a_second_later(videos, shard_set, tmp_path):
    for ranks in (None, 2, 3):
        out = tmp_path / str(ranks)
        arguments = ("build", videos, "--annotations", videos / "list.csv", "--out", out, "--videos-per-shard", 3)
        ended = run_shards(*arguments, "--json", ranks=ranks)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert json.loads(ended.stdout)["videos"] == 9  # printed by one rank only
        assert files_of(out) == files_of(shard_set)


def test_frames_fill_segments_without_crossing_one(tmp_path, videos, monkeypatch):
    monkeypatch.setattr("hpcvideo.shards.content.SEGMENT_BYTES", 20_000)
    build_shards(videos, tmp_path, videos / "list.csv")
    tables = load_tables(tmp_path / "shard-00000.h5")
    sizes = np.diff(tables.segments, axis=1)
    assert len(sizes) > 5
    assert sizes.max() <= 20_000
    assert sizes[:-1].min() > 10_000
    shards = ShardSet(tmp_path)
    assert sum(len(shards.read(video, range(shards.video(video).num_frames))) for video in range(9)) == 144


def test_a_broken_video_is_left_out_whole_and_named(videos, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(videos, source)
    whole = write_video(source / "clip3.mp4", moving_square(14, 96, 64, 3), movflags="faststart").read_bytes()
    (source / "clip3.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    arguments = ("build", source, "--annotations", source / "list.csv", "--out", tmp_path / "out")
    ended = run_shards(*arguments)
    assert ended.returncode == 0
    assert "left out because they do not decode whole: 1 of 9 videos\n  clip3.mp4: cut short: " in ended.stderr
    shards = ShardSet(tmp_path / "out")
    assert sorted(shards.video(index).id for index in range(len(shards))) == [f"clip{i}.mp4" for i in range(9) if i != 3]
    assert [entry.source for entry in shards.manifest.quarantined] == ["clip3.mp4"]
    # A bad video leaves no byte behind: the shard is as large as one without it.
    assert load_tables(tmp_path / "out/shard-00000.h5").frames == 144 - 14
    for ranks in (None, 2):
        strict = run_shards(*arguments, "--strict", ranks=ranks)
        assert strict.returncode == 1
        assert strict.stderr.count("1 of 9 videos do not decode (--strict)") == 1


def test_the_truly_corrupted_file_of_the_zoo_is_quarantined(zoo, tmp_path):
    (tmp_path / "list.csv").write_text("path,label\ncorrupted.mp4,0\nhevc_128x128_10f.mp4,1\n")
    result = build_shards(zoo, tmp_path / "out", tmp_path / "list.csv")
    assert [(entry.source, entry.reason[:35]) for entry in result.quarantined] == [
        ("corrupted.mp4", "after 28 frames: InvalidDataError: ")
    ]
    assert (result.videos, result.frames) == (1, 10)


def test_every_file_of_the_zoo_is_stored_with_its_frames_or_left_out_with_its_reason(zoo, zoo_facts, tmp_path):
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{name},0\n" for name in zoo_facts))
    result = build_shards(zoo, tmp_path / "out", tmp_path / "list.csv", options=BuildOptions(short_side=64, workers=2))
    shards = ShardSet(tmp_path / "out")
    stored = {shards.video(index).id: shards.video(index) for index in range(len(shards))}
    reasons = {entry.source: entry.reason for entry in result.quarantined}
    assert stored.keys() | reasons.keys() == zoo_facts.keys()
    assert reasons.keys() == {"corrupted.mp4"}
    for name, facts in zoo_facts.items():
        if name in stored:
            assert stored[name].num_frames == int(facts["decoded_frames"]), name
            assert stored[name].duration == pytest.approx(stored[name].num_frames / float(facts["avg_fps"]), rel=0.03), name
        else:
            assert reasons[name].startswith(f"after {facts['decoded_frames']} frames: {facts['decode_error']}")


def test_the_bytes_are_the_same_for_any_number_of_workers(videos, shard_set, tmp_path):
    for workers in (1, 3):
        out = tmp_path / str(workers)
        options = BuildOptions(videos_per_shard=3, workers=workers, video_seconds=50 + workers)
        build_shards(videos, out, videos / "list.csv", options=options)
        assert files_of(out) == files_of(shard_set)


def test_which_frames_are_stored_is_recorded_and_makes_another_set(videos, tmp_path):
    arguments = ("build", videos, "--annotations", videos / "list.csv", "--out", tmp_path, "--store-frames", 8)
    assert run_shards(*arguments).returncode == 0
    shards = ShardSet(tmp_path)
    assert [shards.video(index).num_frames for index in range(9)] == [8] * 9
    assert shards.manifest.arguments["store_frames"] == 8
    assert load_tables(tmp_path / "shard-00000.h5").encoder["store_frames"] == 8
    for index in range(9):
        frames = 8 + 2 * int(shards.video(index).id[4])
        assert shards.source_frames(index)[0].tolist() == segment_centres(frames, 8)
    other = run_shards(*arguments[:-2], "--store-fps", 5)
    assert (other.returncode, "store_frames 8 -> None, store_fps None -> 5.0" in other.stderr) == (2, True)
    assert run_shards(*arguments[:-2], "--store-fps", 5, "--overwrite").returncode == 0
    shards = ShardSet(tmp_path)
    assert sorted(shards.video(index).num_frames for index in range(9)) == [4 + index for index in range(9)]


def frame_folder(folder: Path, frames: int, seed: int) -> None:
    folder.mkdir(parents=True)
    for index, pixels in enumerate(moving_square(frames, 96, 64, seed)):
        (folder / f"{index}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels))


def test_inputs_in_a_tar_file_make_the_same_shards_as_unpacked_ones(videos, tmp_path):
    unpacked = tmp_path / "unpacked"
    for index in range(3):
        frame_folder(unpacked / "folders" / str(index), 4 + index, index)
        (unpacked / "files").mkdir(exist_ok=True)
        shutil.copy(videos / f"clip{index}.mp4", unpacked / "files")
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed/all,of them.tar", "w") as tar:
        tar.add(unpacked / "files", "files")
        tar.add(unpacked / "folders", "folders")
    for name in ("unpacked", "packed"):
        build_shards(tmp_path / name, tmp_path / f"{name}-set")
    ours, theirs = files_of(tmp_path / "packed-set"), files_of(tmp_path / "unpacked-set")
    assert {**ours, "manifest.json": b""} == {**theirs, "manifest.json": b""}
    assert len(ShardSet(tmp_path / "packed-set")) == 6


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_video_in_a_tar_file_that_lost_its_end_is_left_out(tmp_path, suffix):
    whole = write_video(tmp_path / f"a{suffix}", moving_square(20, 96, 64, 1))
    (tmp_path / "source/c").mkdir(parents=True)
    for name, kept in (("cut", whole.stat().st_size * 6 // 10), ("whole", whole.stat().st_size)):
        (tmp_path / "source/c" / f"{name}{suffix}").write_bytes(whole.read_bytes()[:kept])
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(tmp_path / "source", ".")
    result = build_shards(tmp_path / "all.tar", tmp_path / "out")
    assert [entry.source for entry in result.quarantined] == [f"c/cut{suffix}"]
    assert result.frames == 20


def test_frame_folders_without_a_clock_are_refused_where_one_is_needed(tmp_path):
    frame_folder(tmp_path / "source/c/a", 10, 1)
    with pytest.raises(InputError, match=r"c/a: a frame folder has no clock, which --store-fps 5 needs; say with --folder"):
        build_shards(tmp_path / "source", tmp_path / "out", options=BuildOptions(store_fps=5))
    clocked = BuildOptions(store_fps=5, folder_fps=10)
    assert build_shards(tmp_path / "source", tmp_path / "out", options=clocked).frames == 5


def test_listed_videos_that_are_missing_are_refused_or_skipped_and_named(videos, tmp_path):
    (tmp_path / "list.csv").write_text("path,label\nclip0.mp4,0\nnot_there.mp4,1\n")
    arguments = ("build", videos, "--annotations", tmp_path / "list.csv", "--out", tmp_path / "out")
    assert run_shards(*arguments).returncode == 2
    ended = run_shards(*arguments, "--missing", "skip")
    assert ended.returncode == 0
    assert "left out because they are missing or do not decode whole: 1 of 2 videos\n  not_there.mp4: " in ended.stderr
    assert [entry.source for entry in ShardSet(tmp_path / "out").manifest.quarantined] == ["not_there.mp4"]
    strict = run_shards(*arguments, "--missing", "skip", "--strict")
    assert (strict.returncode, "1 of 2 videos are missing or do not decode (--strict)" in strict.stderr) == (1, True)


def test_a_set_of_nothing_but_broken_videos_is_a_failure(tmp_path):
    (tmp_path / "source/class").mkdir(parents=True)
    (tmp_path / "source/class/a.mp4").write_bytes(b"nonsense" * 50)
    with pytest.raises(OperationFailed, match=r"none of the 1 videos decodes; the first, class/a\.mp4"):
        build_shards(tmp_path / "source", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_many_labels_are_padded(tmp_path, videos):
    sources = tuple(
        Source(f"clip{index}.mp4", videos / f"clip{index}.mp4", labels, 1, False)
        for index, labels in enumerate(((2, 5), (), (7,)))
    )
    assert len(list(write_shards(tmp_path, [PlannedShard(0, sources, 1, "plan")], Encoding(), Decoding()))) == 1
    with h5py.File(tmp_path / "shard-00000.h5") as shard:
        assert shard["videos/labels"][:].tolist() == [[2, 5], [-1, -1], [7, -1]]
        assert shard["videos/label"][:].tolist() == [2, -1, 7]
    tables = load_tables(tmp_path / "shard-00000.h5")
    assert [tables.labels_of(row) for row in range(3)] == [(2, 5), (), (7,)]


def test_a_forgotten_list_is_pointed_out(videos, tmp_path):
    source = tmp_path / "source"
    (source / "videos").mkdir(parents=True)
    shutil.copy(videos / "clip0.mp4", source / "videos")
    said: list[str] = []
    build_shards(source, tmp_path / "a", warn=said.append)
    assert said.pop().startswith("only one class, 'videos': a folder is a class")
    (source / "videos.csv").write_text("path,label\nvideos/clip0.mp4,0\n")
    ended = run_shards("build", source, "--out", tmp_path / "b")
    assert f"warning: only one class, 'videos': did you mean --annotations {source}/videos.csv?" in ended.stderr
    shutil.copytree(source / "videos", source / "others")
    build_shards(source, tmp_path / "c", warn=said.append)
    assert said.pop() == f"{source}/videos.csv is not read: did you mean --annotations {source}/videos.csv?"
    build_shards(source, tmp_path / "d", source / "videos.csv", warn=said.append)
    assert not said


def test_tasks_of_srun_that_cannot_see_each_other_are_refused(videos, tmp_path, monkeypatch):
    for name, value in {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="srun started 4 tasks, but each sees an MPI world of one"):
        build_shards(videos, tmp_path / "out", videos / "list.csv")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (BuildOptions(quality=0), "at least 16 pixels and 1 to 100 expected"),
        (BuildOptions(short_side=1), "at least 16 pixels and 1 to 100 expected"),
        (BuildOptions(store_frames=0), "--store-frames 0: 1 or more expected"),
        (BuildOptions(workers=0), "--workers 0: 1 or more expected"),
        (BuildOptions(store_fps=0.0), "--store-fps 0.0: more than 0 expected"),
        (BuildOptions(video_seconds=float("nan")), "--video-seconds nan: more than 0 expected"),
        (BuildOptions(store_frames=8, store_fps=2.0), "contradict each other; choose one"),
    ],
)
def test_options_out_of_range_are_refused(videos, tmp_path, options, sentence):
    with pytest.raises(InputError, match=sentence):
        build_shards(videos, tmp_path / "out", videos / "list.csv", options=options)


def test_shards_below_a_folder_a_class_are_refused(tmp_path):
    (tmp_path / "source/class").mkdir(parents=True)
    write_video(tmp_path / "source/class/a.mp4", moving_square(4, 64, 64, 0))
    with pytest.raises(InputError, match="lies inside SOURCE, where it would count as a class"):
        build_shards(tmp_path / "source", tmp_path / "source/shards")


def test_a_file_where_the_folder_should_be_is_refused(videos, tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(InputError, match="out: is a file; --out wants a folder"):
        build_shards(videos, tmp_path / "out", videos / "list.csv")
    with pytest.raises(OperationFailed, match="choose an --out folder you can write"):
        build_shards(videos, tmp_path / "out/below", videos / "list.csv")


def test_a_negative_seed_is_refused(videos, tmp_path):
    with pytest.raises(InputError, match="--seed -1: 0 or more expected"):
        build_shards(videos, tmp_path / "out", videos / "list.csv", options=BuildOptions(seed=-1))


def test_frames_of_every_video_look_like_their_source(videos, shard_set):
    shards = ShardSet(shard_set)
    for index in range(len(shards)):
        facts = shards.video(index)
        number = int(facts.id[4])
        source = moving_square(8 + 2 * number, facts.width, facts.height, number)
        clip = shards.read(index, range(facts.num_frames))
        assert clip.shape == source.shape
        assert np.abs(clip.astype(int) - source).mean() < 8
        assert shards.label_names[facts.labels[0]] == ("jump", "run", "walk")[number % 3]
        assert simplejpeg.decode_jpeg_header(shards.read_jpegs(index, [0])[0])[3] == "420"
