"""`split`: every video in one part, classes shared out evenly, and the parts together the set again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.errors import InputError
from hpcvideo.shards.tools.copy_plan import Layout
from hpcvideo.shards.tools.merge import merge
from hpcvideo.shards.tools.reshard import reshard
from hpcvideo.shards.tools.split import SplitPart, parse_part, share_out, split
from hpcvideo.shards.tools.verify import verify_shards

from ..command import run_shards
from ..generated import files_of
from .stored_sets import content_of, left_out_of, small_set


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    """A set of 40 videos in three classes."""
    return small_set(tmp_path_factory.mktemp("old") / "set", videos=40, frames=2, per_shard=10)


def first_label(facts: tuple[object, ...]) -> str:
    labels = facts[0]
    assert isinstance(labels, tuple)
    return labels[0] if labels else "-"


def test_shares_hold_every_class_and_together_the_set(old, tmp_path):
    parts = [parse_part(f"{tmp_path}/train=0.7"), parse_part(f"{tmp_path}/validation=0.3")]
    results = split(old, parts, Layout(videos_per_shard=6))
    train, validation, whole = content_of(tmp_path / "train"), content_of(tmp_path / "validation"), content_of(old)
    assert [result.videos for result in results] == [len(train), len(validation)] == [28, 12]
    assert not set(train) & set(validation)
    assert {**train, **validation} == whole
    classes = Counter(map(first_label, whole.values()))
    for label, count in Counter(map(first_label, train.values())).items():
        assert abs(count - 0.7 * classes[label]) < 2
    assert sorted(left_out_of(tmp_path / "train") + left_out_of(tmp_path / "validation")) == left_out_of(old)
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("train", "validation")]
    assert manifests[0]["label_names"] == manifests[1]["label_names"] == ["a", "b", "c"]
    assert manifests[0]["plan"] != manifests[1]["plan"]
    assert manifests[1]["arguments"]["part"] == f"{tmp_path}/validation=0.3"
    assert verify_shards(tmp_path / "train").problems == ()


def test_the_parts_merged_are_the_set_resharded_to_the_byte_of_each_frame(old, tmp_path):
    parts = [parse_part(f"{tmp_path}/a=0.5"), parse_part(f"{tmp_path}/b=rest")]
    split(old, parts, Layout())
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged", Layout(videos_per_shard=7))
    reshard(old, tmp_path / "resharded", Layout(videos_per_shard=7))
    assert content_of(tmp_path / "merged") == content_of(tmp_path / "resharded") == content_of(old)
    assert left_out_of(tmp_path / "merged") == left_out_of(old)


def test_lists_say_which_videos_and_rest_takes_what_is_left(old, tmp_path):
    whole = content_of(old)
    chosen = sorted(whole)[5:15]
    (tmp_path / "ids.txt").write_text("\n".join([*chosen, "c/broken0-1.mp4", ""]))
    arguments = ("split", old, "--out", f"{tmp_path}/few=@{tmp_path}/ids.txt", "--out", f"{tmp_path}/many=rest")
    ended = run_shards(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    assert [outcome["videos"] for outcome in json.loads(ended.stdout)] == [10, 30]
    assert content_of(tmp_path / "few") == {video_id: whole[video_id] for video_id in chosen}
    assert content_of(tmp_path / "many") == {each: facts for each, facts in whole.items() if each not in chosen}
    assert left_out_of(tmp_path / "few") == [("c/broken0-1.mp4", "no frame decodes")]
    (tmp_path / "ids.txt").write_text("c/nowhere.mp4\n")
    refused = run_shards("split", old, "--out", f"{tmp_path}/x=@{tmp_path}/ids.txt")
    assert refused.returncode == 2
    assert "1 of its ids are not in" in refused.stderr and "'c/nowhere.mp4'" in refused.stderr


def test_shares_may_leave_some_over(old, tmp_path):
    (result,) = split(old, [parse_part(f"{tmp_path}/tenth=0.1")], Layout(), by="video")
    assert result.videos == 4
    with pytest.raises(InputError, match="would hold no video"):
        split(old, [parse_part(f"{tmp_path}/none=0.001")], Layout(), by="video")


def test_ranks_write_the_bytes_of_one(old, tmp_path):
    for ranks, name in ((None, "alone"), (3, "ranks")):
        parts = [f"{tmp_path}/{name}/a=0.6", f"{tmp_path}/{name}/b=0.4"]
        ended = run_shards("split", old, "--out", parts[0], "--out", parts[1], "--videos-per-shard", 3, ranks=ranks)
        assert ended.returncode == 0, ended.stderr
    for part in "ab":
        alone, together = files_of(tmp_path / "alone" / part), files_of(tmp_path / "ranks" / part)
        manifests = [json.loads(files.pop("manifest.json")) for files in (alone, together)]
        assert alone == together
        assert manifests[0]["shards"] == manifests[1]["shards"]
    again = run_shards("split", old, "--out", parts[0], "--out", parts[1], "--videos-per-shard", 3)
    assert again.stdout.count("kept from an earlier run") == 2


@given(
    st.dictionaries(st.text(max_size=4), st.sampled_from("abc"), max_size=200),
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.integers(0, 3),
    st.integers(0, 20),
)
def test_shares_are_met_in_the_whole_and_in_each_class(strata, weights, seed, over):
    shares = [weight / (sum(weights) + over) for weight in weights]
    chosen = share_out(strata, shares, seed)
    assert set(chosen) == set(strata)
    assert over or None not in chosen.values() or len(strata) == 0
    for place, share in enumerate(shares):
        assert abs(sum(each == place for each in chosen.values()) - share * len(strata)) < 2
        for label in "abc":
            of_class = [each for each, its in strata.items() if its == label]
            assert abs(sum(chosen[each] == place for each in of_class) - share * len(of_class)) <= 3
    shuffled = dict(sorted(strata.items(), reverse=True))
    assert share_out(shuffled, shares, seed) == chosen


def test_another_seed_draws_others():
    strata = {str(number): "" for number in range(1000)}
    first, second = (share_out(strata, [0.5, 0.5], seed) for seed in (0, 1))
    both = sum(first[each] == second[each] for each in strata)
    assert abs(both - 500) < 5 * (1000 / 4) ** 0.5


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (["a"], "FOLDER=0.9, FOLDER=@LIST or FOLDER=rest expected"),
        (["a=0"], "more than 0 and at most 1"),
        (["a=1.5"], "more than 0 and at most 1"),
        (["a=nan"], "more than 0 and at most 1"),
        (["a=@nowhere.txt"], "nowhere.txt: the list of ids cannot be read"),
        (["a=0.6", "b=0.6"], "the shares sum to 1.2"),
        (["a=rest", "b=rest"], "only one part can be the rest"),
        (["a=0.5", "./a=0.5"], "a is named twice"),
    ],
)
def test_parts_that_make_no_sense_are_refused(old, parts, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence):
        split(old, [parse_part(text) for text in parts], Layout())


def test_an_id_in_two_lists_and_lists_beside_shares_are_refused(old):
    lists = [SplitPart(Path(name), ids=frozenset({"c/1.mp4"}), text=name) for name in "ab"]
    with pytest.raises(InputError, match=r"id 'c/1\.mp4' is in the list of a, too"):
        split(old, lists, Layout())
    with pytest.raises(InputError, match="shares or lists of ids, not both"):
        split(old, [lists[0], SplitPart(Path("c"), share=0.5)], Layout())
