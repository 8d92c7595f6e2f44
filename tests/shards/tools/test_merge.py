"""`merge`: all videos of all sets in one, and nothing put together that does not belong together unless told to."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest

from hpcvideo.errors import InputError
from hpcvideo.shards.format import Encoding
from hpcvideo.shards.tools.copy_plan import Layout, united_encoder
from hpcvideo.shards.tools.merge import MergeRules, merge, united_labels
from hpcvideo.shards.tools.verify import verify_shards

from ..command import run_shards
from ..generated import files_of
from .stored_sets import content_of, left_out_of, small_set


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> tuple[Path, Path]:
    """Two sets of other ids, whose label maps differ: a, b, c and c, d, a."""
    folder = tmp_path_factory.mktemp("sets")
    first = small_set(folder / "first", seed=1, ids="c/{}.mp4")
    return first, small_set(folder / "second", seed=2, ids="d/{}.mp4", names=("c", "d", "a"), videos=7)


def test_a_merge_holds_all_videos_with_their_labels_by_name(sets, tmp_path):
    result = merge(sets, tmp_path / "new", Layout(videos_per_shard=5), MergeRules(unite_labels=True))
    first, second = map(content_of, sets)
    assert content_of(tmp_path / "new") == {**first, **second}
    assert left_out_of(tmp_path / "new") == sorted(left_out_of(sets[0]) + left_out_of(sets[1]))
    manifest = json.loads((tmp_path / "new/manifest.json").read_text())
    assert manifest["label_names"] == ["a", "b", "c", "d"]
    assert (result.videos, result.shards) == (19, 4)
    assert verify_shards(tmp_path / "new", decode=True).problems == ()
    assert manifest["arguments"]["from"] == list(map(str, sets))
    assert [origin["arguments"]["seed"] for origin in manifest["arguments"]["origins"]] == [1, 2]
    with h5py.File(tmp_path / "new/shard-00000.h5") as shard:
        assert len({video_id[0] for video_id in shard["videos/id"].asstr()[:]}) == 2  # shuffled, not one set after the other


def test_label_maps_that_differ_are_refused_with_how(sets, tmp_path):
    ended = run_shards("merge", *sets, "--out", tmp_path / "new")
    assert ended.returncode == 2
    assert "label maps differ (1 only in the first, such as 'b'; 1 only in the second, such as 'd'); pass" in ended.stderr
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="the same names in another order"):
        united_labels([(Path("x"), ("a", "b")), (Path("y"), ("b", "a"))], False)
    with pytest.raises(InputError, match="labels of one are numbers and of the other names"):
        united_labels([(Path("x"), ("0", "1")), (Path("y"), ("b", "a"))], True)
    assert united_labels([(Path("x"), ("0", "1")), (Path("y"), ("0", "1", "2"))], True) == ("0", "1", "2")


def test_equal_ids_are_refused_or_told_apart_by_their_folders(sets, tmp_path):
    again = small_set(tmp_path / "again", seed=5, videos=3)
    with pytest.raises(InputError, match=r"3 videos have the same id in both, such as 'c/0'; pass --prefix-ids"):
        merge([sets[0], again], tmp_path / "new", Layout())
    merge([sets[0], again], tmp_path / "new", Layout(), MergeRules(prefix_ids=True))
    expected = {f"first/{video_id}": facts for video_id, facts in content_of(sets[0]).items()}
    expected |= {f"again/{video_id}": facts for video_id, facts in content_of(again).items()}
    assert content_of(tmp_path / "new") == expected
    assert {name.split("/")[0] for name, _ in left_out_of(tmp_path / "new")} == {"first", "again"}
    twin = small_set(tmp_path / "deeper/first", seed=6)
    with pytest.raises(InputError, match="two folders are 'first'"):
        merge([sets[0], twin], tmp_path / "other", Layout(), MergeRules(prefix_ids=True))


def test_frames_made_differently_are_refused_or_recorded(sets, tmp_path):
    small = small_set(tmp_path / "small", seed=7, ids="e/{}.mp4", encoding=Encoding(short_side=128))
    with pytest.raises(InputError, match=r"made differently \(short_side 256 and 128\); pass --mix-encodings"):
        merge([sets[0], small], tmp_path / "new", Layout())
    merge([sets[0], small], tmp_path / "new", Layout(), MergeRules(mix_encodings=True))
    assert content_of(tmp_path / "new") == {**content_of(sets[0]), **content_of(small)}
    with h5py.File(tmp_path / "new/shard-00000.h5") as shard:
        encoder = json.loads(shard.attrs["encoder"])
    assert encoder == {**Encoding().describe(), "short_side": [128, 256]}
    merge([tmp_path / "new", sets[1]], tmp_path / "both", Layout(), MergeRules(True, False, True))
    with h5py.File(tmp_path / "both/shard-00000.h5") as shard:
        assert json.loads(shard.attrs["encoder"])["short_side"] == [128, 256]


def test_encoders_unite_by_value():
    assert united_encoder([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}]) == {"a": 1, "b": [2, 3], "c": [None, 4]}
    assert united_encoder([{"a": [1, 2]}, {"a": 2}]) == {"a": [1, 2]}


def test_ranks_write_the_bytes_of_one(sets, tmp_path):
    for ranks, name in ((None, "alone"), (3, "ranks")):
        out = tmp_path / name
        ended = run_shards("merge", *sets, "--out", out, "--unite-labels", "--videos-per-shard", 4, ranks=ranks)
        assert ended.returncode == 0, ended.stderr
    assert files_of(tmp_path / "alone") == files_of(tmp_path / "ranks")


def test_one_set_or_one_twice_is_no_merge(sets, tmp_path):
    with pytest.raises(InputError, match="two or more"):
        merge(sets[:1], tmp_path / "new", Layout())
    with pytest.raises(InputError, match="is named twice"):
        merge([sets[0], sets[0]], tmp_path / "new", Layout())
