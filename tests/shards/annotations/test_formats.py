"""Each annotation format: what right files mean, and which line or entry of a wrong one the sentence names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.charades import CODES
from hpcvideo.shards.annotations.read import SourceList, read_sources

from .written import labelled, place, write


def intervals(listed: SourceList) -> dict[str, list[tuple[str, float, float]]]:
    return {each.id: [(listed.label_names[action.label], action.begin, action.end) for action in each.actions]
            for each in listed.sources}  # fmt: skip


KINETICS = """label,youtube_id,time_start,time_end,split,is_cc
tying bow tie,-0_Az-09,1,11,train,0
passing American football (in game),abcdefghijk,94,104,train,0
"eating, fast",flat_______,0,10,val,0
eating spaghetti,whole______,3,13,train,1
eating spaghetti,whole______,20,30,train,1
"""


def test_kinetics_clips_are_found_by_label_flat_by_split_or_cut_from_whole_videos(tmp_path):
    source = place(
        tmp_path / "videos",
        "tying_bow_tie/-0_Az-09_000001_000011.mp4",
        "passing_American_football_-in_game-/abcdefghijk_000094_000104.webm",
        "val/flat________000000_000010.mkv",
        "eating spaghetti/whole______.mp4",
    )
    csv_file = write(tmp_path / "train.csv", KINETICS)
    listed = read_sources(source, csv_file, None)
    assert listed.format == "kinetics"
    assert {each.id: each.span for each in listed.sources} == {
        "tying_bow_tie/-0_Az-09_000001_000011.mp4": None,
        "passing_American_football_-in_game-/abcdefghijk_000094_000104.webm": None,
        "val/flat________000000_000010.mkv": None,
        "eating spaghetti/whole_______000003_000013.mp4": (3.0, 13.0),
        "eating spaghetti/whole_______000020_000030.mp4": (20.0, 30.0),
    }
    assert listed.sources[4].path == source / "eating spaghetti" / "whole______.mp4"
    assert listed.label_names == ("eating spaghetti", "eating, fast", "passing American football (in game)", "tying bow tie")
    assert labelled(listed)["tying_bow_tie/-0_Az-09_000001_000011.mp4"] == ("tying bow tie",)
    only = read_sources(source, csv_file, None, subset="val")
    assert [each.id for each in only.sources] == ["val/flat________000000_000010.mkv"]
    with pytest.raises(InputError, match=r"--subset test: .*has no entry of it; there are: train, val"):
        read_sources(source, csv_file, None, subset="test")


def test_missing_clips_are_named_with_their_line_or_left_out_and_listed(tmp_path):
    source = place(tmp_path / "videos", "tying bow tie/-0_Az-09_000001_000011.mp4")
    csv_file = write(tmp_path / "train.csv", KINETICS)
    sentence = r"line 3: no video of any suffix and no frame folder '.*hijk_000094_000104' in .*\(4 of 5 are missing\)"
    with pytest.raises(InputError, match=rf"{sentence}.*--missing skip"):
        read_sources(source, csv_file, None)
    listed = read_sources(source, csv_file, None, missing="skip")
    assert len(listed.sources) == 1
    assert [(each.name, each.reason) for each in listed.skipped][2:] == [
        ("eating spaghetti/whole_______000003_000013", "missing"), ("eating spaghetti/whole_______000020_000030", "missing"),
    ]  # fmt: skip
    assert listed.skipped[0].where.endswith("train.csv, line 3")
    assert len(listed.label_names) == 4  # a label map does not depend on what is on this disk
    with pytest.raises(InputError, match="none of its 5 videos is in"):
        read_sources(place(tmp_path / "empty"), csv_file, None, missing="skip")


def test_two_files_of_one_id_are_refused(tmp_path):
    source = place(tmp_path / "videos", "7.webm", "7/3")
    with pytest.raises(InputError, match=r"entry 1 \(id 7\): '7' may be '7(\.webm)?' or '7(\.webm)?' in "):
        read_sources(source, write(tmp_path / "v2.json", [{"id": "7", "template": "[x]"}]), None)


@pytest.fixture
def ucf101(tmp_path: Path) -> Path:
    folder = tmp_path / "ucfTrainTestlist"
    write(folder / "classInd.txt", "1 Zumba\n2 Archery\n")
    write(folder / "trainlist01.txt", "Zumba/v_Zumba_g08_c01.avi 1\r\nArchery/v_Archery_g08_c01.avi 2\r\n")
    write(folder / "testlist01.txt", "Archery/v_Archery_g01_c01.avi\n")
    write(folder / "trainlist02.txt", "Archery/v_Archery_g01_c01.avi 2\n")
    place(tmp_path / "videos", "Zumba/v_Zumba_g08_c01.avi", "Archery/v_Archery_g08_c01.avi", "Archery/v_Archery_g01_c01.avi")
    return folder


def test_ucf101_lists_take_the_class_numbers_and_test_lists_the_folder(tmp_path, ucf101):
    source = tmp_path / "videos"
    train = read_sources(source, ucf101 / "trainlist01.txt", None)
    assert (train.format, train.label_names) == ("ucf101", ("Zumba", "Archery"))
    assert [each.labels for each in train.sources] == [(0,), (1,)]
    test = read_sources(source, ucf101 / "testlist01.txt", None)
    assert (labelled(test), test.label_names) == ({"Archery/v_Archery_g01_c01.avi": ("Archery",)}, ("Zumba", "Archery"))
    assert len(read_sources(source, ucf101, None, split=1).sources) == 3
    assert len(read_sources(source, ucf101, None, split=1, subset="train").sources) == 2
    with pytest.raises(InputError, match=r"no --split: .* holds the splits 1, 2; choose"):
        read_sources(source, ucf101, None)
    with pytest.raises(InputError, match=r"--split 1: .*trainlist01\.txt is one list"):
        read_sources(source, ucf101 / "trainlist01.txt", None, split=1)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("Zumba/v_Zumba_g08_c01.avi 2", "line 2: class number 2, but classInd.txt gives Zumba the number 1"),
        ("Yoga/v_Yoga_g08_c01.avi 1", "line 2: class 'Yoga' of .* is not in .*classInd.txt"),
        ("../v_Zumba_g08_c01.avi 1", "line 2: path .* is not below SOURCE"),
    ],
)
def test_a_wrong_ucf101_line_is_named(tmp_path, ucf101, line, sentence):
    write(ucf101 / "trainlist01.txt", f"Zumba/v_Zumba_g08_c01.avi 1\n{line}\n")
    with pytest.raises(InputError, match=sentence):
        read_sources(tmp_path / "videos", ucf101 / "trainlist01.txt", None)


def test_hmdb51_wants_a_split_and_leaves_out_what_is_neither_train_nor_test(tmp_path):
    names = ["a #1 [x].avi", "b.avi", "c.avi"]
    source = place(tmp_path / "videos", *(f"brush_hair/{name}" for name in names), "wave/w.avi")
    splits = tmp_path / "splits"
    write(
        splits / "brush_hair_test_split1.txt",
        "".join(f"{name} {part} \n" for name, part in zip(names, (1, 2, 0), strict=True)),
    )
    write(splits / "wave_test_split1.txt", "w.avi 1\n")
    write(splits / "wave_test_split2.txt", "w.avi 2\n")
    both = read_sources(source, splits, None, split=1)
    assert both.format == "hmdb51"
    assert labelled(both) == {"brush_hair/a #1 [x].avi": ("brush_hair",), "brush_hair/b.avi": ("brush_hair",),
                              "wave/w.avi": ("wave",)}  # fmt: skip
    assert list(labelled(read_sources(source, splits, None, subset="test", split=1))) == ["brush_hair/b.avi"]
    with pytest.raises(InputError, match=r"--split 3: .* holds the splits 1, 2"):
        read_sources(source, splits, None, split=3)
    write(splits / "wave_test_split1.txt", "w.avi 1\nv.avi 3\n")
    with pytest.raises(InputError, match=r"wave_test_split1\.txt, line 2: 'v\.avi 3'; a file name and 0, 1 or 2"):
        read_sources(source, splits, None, split=1)


SOMETHING = [
    {
        "id": "78687",
        "label": "holding potato",
        "template": "Holding [something] next to [something]",
        "placeholders": ["potato"],
    },
    {"id": "42326", "label": "pushing car", "template": "Pushing [something]"},
]


def test_something_takes_templates_without_brackets_and_a_json_of_labels(tmp_path):
    source = place(tmp_path / "videos", "78687.webm", "42326/5")
    entries = write(tmp_path / "train.json", SOMETHING)
    listed = read_sources(source, entries, None)
    assert listed.format == "something"
    assert labelled(listed) == {"78687.webm": ("Holding something next to something",), "42326": ("Pushing something",)}
    labels = write(tmp_path / "labels.json", {"Pushing something": "0", "Holding something next to something": "1"})
    assert [each.labels for each in read_sources(source, entries, labels).sources] == [(1,), (0,)]
    with pytest.raises(InputError, match=r"labels\.json: the indices of its 2 labels are not 0 to 1"):
        read_sources(source, entries, write(tmp_path / "labels.json", {"a": "0", "b": "2"}))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([*SOMETHING, {"id": "1"}], r"entry 3 \(id 1\): no `template`"),
        ([*SOMETHING, {"template": "x"}], "entry 3: no `id`"),
        ([*SOMETHING, SOMETHING[0]], r"entry 3 \(id 78687\): '78687\.webm' is listed already at .*entry 1"),
        ([*SOMETHING, {"id": "../1", "template": "x"}], "entry 3 .*is no video's id"),
        ({"id": "1"}, "a list of entries"),
        ('[{"id": "1",\n"template": }]', "line 2: not JSON"),
    ],
)
def test_a_wrong_something_entry_is_named(tmp_path, content, sentence):
    source = place(tmp_path / "videos", "78687.webm", "42326.webm")
    with pytest.raises(InputError, match=sentence):
        read_sources(source, write(tmp_path / "train.json", content), None, format="something")


def test_jester_lists_are_frame_folders_of_their_ids(tmp_path):
    source = place(tmp_path / "videos", "34870/6", "56557/4")
    listed = read_sources(
        source, write(tmp_path / "t.csv", "34870;Drumming Fingers\n56557;Sliding Two Fingers Right\n"), None
    )
    assert (listed.format, [(each.is_folder, each.bytes) for each in listed.sources]) == ("jester", [(True, 6), (True, 4)])
    assert labelled(listed) == {"34870": ("Drumming Fingers",), "56557": ("Sliding Two Fingers Right",)}
    with pytest.raises(InputError, match=r"line 2: '56557'; `id;label` is expected"):
        read_sources(source, write(tmp_path / "t.csv", "34870;Drumming Fingers\n56557\n"), None, format="jester")


CHARADES = (
    "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
    '46GP8,HR43,Kitchen,6,7,Yes,"A person, cooking.",food;stove,"A ""person"".",'
    "c092 11.90 21.20;c147 0.00 12.60;c092 25 30,24.83\n"
    "N11GT,0KZ7,Study,5,6,Yes,x,y,z,,18.33\n"
)


def test_charades_is_multi_label_with_times_and_its_codes_are_the_indices(tmp_path):
    source = place(tmp_path / "videos", "46GP8.mp4", "N11GT/9")
    listed = read_sources(source, write(tmp_path / "train.csv", CHARADES), None)
    assert (listed.format, listed.label_names) == ("charades", CODES)
    assert [each.labels for each in listed.sources] == [(92, 147), ()]
    assert intervals(listed)["46GP8.mp4"] == [("c092", 11.9, 21.2), ("c147", 0.0, 12.6), ("c092", 25.0, 30.0)]
    classes = write(tmp_path / "classes.txt", "".join(f"{code} Doing thing {code}\n" for code in CODES))
    named = read_sources(source, tmp_path / "train.csv", classes)
    assert named.label_names[92] == "Doing thing c092"
    assert named.sources == listed.sources
    with pytest.raises(InputError, match=r"classes\.txt: 2 labels; this format has 157"):
        read_sources(source, tmp_path / "train.csv", write(tmp_path / "classes.txt", "a\nb\n"))


@pytest.mark.parametrize(
    ("actions", "sentence"),
    [
        ("c157 0 1", "action 'c157 0 1'"),
        ("c001 0", "action 'c001 0'"),
        ("c001 5 x", "'5' to 'x' is no interval"),
        ("c001 5 4", "5 to 4 seconds is no interval"),
        ("c001 nan 4", "nan to 4"),
        ("c001 0 inf", "0 to inf"),
    ],
)
def test_a_wrong_charades_action_is_named_with_its_line(tmp_path, actions, sentence):
    lines = CHARADES.splitlines()
    lines[2] = lines[2].replace(",,", f",{actions},")
    with pytest.raises(InputError, match=f"line 3: {sentence}"):
        read_sources(place(tmp_path / "videos", "46GP8.mp4"), write(tmp_path / "train.csv", "\n".join(lines)), None)


ACTIVITYNET = {
    "version": "VERSION 1.3",
    "taxonomy": [],
    "database": {
        "QOlSCBRmfWY": {
            "subset": "training",
            "duration": 82.73,
            "annotations": [
                {"segment": [6.2, 77.2], "label": "Ballet"},
                {"segment": [1, 2], "label": "Archery"},
                {"segment": [80, 81], "label": "Ballet"},
            ],
        },
        "ehGHCYKzyZ8": {"subset": "validation", "duration": 9.0, "annotations": [{"segment": [0, 9.5], "label": "Ballet"}]},
        "l7qmnUQBSqo": {"subset": "testing", "duration": 5.0, "annotations": []},
    },
}


def test_activitynet_segments_are_actions_and_subsets_can_be_chosen(tmp_path):
    source = place(tmp_path / "videos", "v_QOlSCBRmfWY.mp4", "validation/ehGHCYKzyZ8.mkv", "v_l7qmnUQBSqo.webm")
    database = write(tmp_path / "activity_net.v1-3.min.json", ACTIVITYNET)
    listed = read_sources(source, database, None)
    assert (listed.format, listed.label_names) == ("activitynet", ("Archery", "Ballet"))
    assert intervals(listed)["v_QOlSCBRmfWY.mp4"] == [("Ballet", 6.2, 77.2), ("Archery", 1.0, 2.0), ("Ballet", 80.0, 81.0)]
    assert [each.labels for each in listed.sources] == [(0, 1), (1,), ()]
    only = read_sources(source, database, None, subset="validation")
    assert (labelled(only), only.label_names) == ({"validation/ehGHCYKzyZ8.mkv": ("Ballet",)}, ("Ballet",))
    bare = read_sources(source, write(tmp_path / "bare.json", ACTIVITYNET["database"]), None, format="activitynet")
    assert bare.sources == listed.sources


@pytest.mark.parametrize(
    ("annotation", "sentence"),
    [
        ({"segment": [0, 1]}, "no `label`"),
        ({"segment": [2, 1], "label": "x"}, "2 to 1 seconds is no interval"),
        ({"segment": [1], "label": "x"}, r"segment \[1\]; \[begin, end\] in seconds"),
        ({"segment": [None, 1], "label": "x"}, "None to 1 is no interval"),
    ],
)
def test_a_wrong_activitynet_annotation_is_named_with_its_video(tmp_path, annotation, sentence):
    database = {"database": {"a": {"subset": "s", "annotations": [{"segment": [0, 1], "label": "x"}, annotation]}}}
    with pytest.raises(InputError, match=f"video 'a', annotation 2: {sentence}"):
        read_sources(place(tmp_path / "videos", "a.mp4"), write(tmp_path / "a.json", database), None)


def test_thumos_gathers_the_classes_of_a_video_and_leaves_out_what_is_ambiguous(tmp_path):
    folder = tmp_path / "annotation"
    write(folder / "Diving_val.txt", "video_validation_0000001  5.0 6.5\nvideo_validation_0000001 1.0 2.0\n")
    write(folder / "CliffDiving_val.txt", "video_validation_0000001  1.0 2.0\n")
    write(folder / "Ambiguous_val.txt", "video_validation_0000009  1.0 2.0\nvideo_validation_0000001 7 8\n")
    write(folder / "Diving_test.txt", "video_test_0000002  1.0 2.0\n")
    write(folder / "detclasslist.txt", "22 Diving\n")
    source = place(tmp_path / "videos", "validation/video_validation_0000001.mp4", "video_test_0000002.mp4")
    listed = read_sources(source, folder, None)
    assert (listed.format, listed.label_names) == ("thumos", ("CliffDiving", "Diving"))
    assert intervals(listed) == {
        "validation/video_validation_0000001.mp4": [("CliffDiving", 1.0, 2.0), ("Diving", 1.0, 2.0), ("Diving", 5.0, 6.5)],
        "video_test_0000002.mp4": [("Diving", 1.0, 2.0)],
    }
    assert list(intervals(read_sources(source, folder, None, subset="test"))) == ["video_test_0000002.mp4"]
    write(folder / "Diving_test.txt", "video_test_0000002  1.0 2.0\nvideo_test_0000002 1.0\n")
    with pytest.raises(
        InputError, match=r"Diving_test\.txt, line 2: 'video_test_0000002 1.0'; a video's name, begin and end"
    ):
        read_sources(source, folder, None)


def test_lists_hold_videos_and_frame_folders_with_one_or_several_labels(tmp_path):
    source = place(tmp_path / "videos", "a b/v 1.mp4", "frames/clip 7x/5", "c.avi", "c2/4")
    text = "a b/v 1.mp4 3\nframes/clip 7x 5 0\nc.avi 2 1 2\nc2 4 1 3\n"
    listed = read_sources(source, write(tmp_path / "train_videos.txt", text), None)
    assert (listed.format, listed.label_names) == ("list", ("0", "1", "2", "3"))
    assert {each.id: each.labels for each in listed.sources} == {
        "a b/v 1.mp4": (3,), "frames/clip 7x": (0,), "c.avi": (1, 2), "c2": (1, 3),
    }  # fmt: skip
    with pytest.raises(InputError, match=r"line 1: .*c2: 4 frames are there of the 300 that the list states"):
        read_sources(source, write(tmp_path / "short.txt", "c2 300 1\nc.avi 0\n"), None)
    skipped = read_sources(source, tmp_path / "short.txt", None, missing="skip").skipped
    assert [each.reason for each in skipped] == ["missing: 4 frames are there of the 300 that the list states"]
    for line, sentence in (
        ("c2 4", "a frame folder is listed as"),
        ("c.avi", "a path and one or more"),
        ("12 13 14", "12: No such"),
    ):
        with pytest.raises(InputError, match=f"line 2: .*{sentence}"):
            read_sources(source, write(tmp_path / "wrong.txt", f"c.avi 0\n{line}\n"), None, format="list")


PART = st.text(st.characters(exclude_characters="/\0\n\r", exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=12)
PATHS = st.lists(PART.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3).map(
    lambda parts: "/".join(parts) + "x.mp4"
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    videos=st.dictionaries(PATHS, st.lists(st.integers(0, 20), min_size=1, max_size=3, unique=True), min_size=1, max_size=5)
)
def test_any_paths_and_labels_come_back_from_list_and_plain_files(tmp_path_factory, videos):
    folder = tmp_path_factory.mktemp("any")
    try:
        source = place(folder / "videos", *videos)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return  # one name is a folder of another
    text = "".join(f"{path} {' '.join(map(str, labels))}\n" for path, labels in videos.items())
    listed = read_sources(source, write(folder / "list.txt", text), None, format="list")
    assert {each.id: each.labels for each in listed.sources} == {path: tuple(sorted(each)) for path, each in videos.items()}
    quoted = "".join('"{}",{}\n'.format(path.replace('"', '""'), labels[0]) for path, labels in videos.items())
    plain = read_sources(source, write(folder / "list.csv", "path,label\n" + quoted), None, format="plain")
    assert [(each.id, each.labels) for each in plain.sources] == [(path, (labels[0],)) for path, labels in videos.items()]
