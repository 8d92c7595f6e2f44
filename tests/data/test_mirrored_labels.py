"""Labels in a mirror: which change, and which configs are refused for not saying so."""

from __future__ import annotations

from typing import Any

import pytest

from hpcvideo.config.load import parse_config
from hpcvideo.data.mirrored_labels import check_flip, directed_labels, mirrored_labels
from hpcvideo.errors import InputError
from hpcvideo.training.check import check_run

JESTER = ("Swiping Left", "Swiping Right", "Thumb Up", "Turning Hand Clockwise", "Turning Hand Counterclockwise")


def test_words_of_direction_are_found_as_whole_words() -> None:
    assert directed_labels(JESTER) == [JESTER[0], JESTER[1], JESTER[3], JESTER[4]]
    names = ["Pushing something from left to right", "swipe_left", "SwipeRight", "leftover soup", "bright"]
    assert directed_labels(names) == names[:3]
    assert directed_labels(["north", "east", "west"]) == ["east", "west"]
    assert directed_labels(["dancing west coast swing", "archery", "winding a clock clockwise"]) == []


def test_pairs_work_both_ways_round_and_leave_the_others() -> None:
    assert mirrored_labels(JESTER, {JESTER[1]: JESTER[0], JESTER[3]: JESTER[4]}, "x") == ((0, 1), (1, 0), (3, 4), (4, 3))
    assert mirrored_labels(JESTER, {JESTER[0]: JESTER[1], JESTER[1]: JESTER[0]}, "x") == ((0, 1), (1, 0))
    assert mirrored_labels(JESTER, {}, "x") == mirrored_labels(JESTER, None, "x") == ()
    with pytest.raises(InputError, match=r"flip_labels: set/train has no label 'Swiping Up'; it has .* 2 more"):
        mirrored_labels(JESTER, {"Swiping Left": "Swiping Up"}, "set/train")


def test_mirroring_directed_classes_is_refused_until_something_is_said() -> None:
    with pytest.raises(InputError, match=r"'Swiping Left', .* change in a mirror; set data\.flip=false, or name the pairs"):
        check_flip(JESTER, True, None, "set")
    check_flip(JESTER, False, None, "set")
    check_flip(JESTER, True, {}, "set")
    check_flip(("archery", "bowling"), True, None, "set")


def test_a_run_that_would_mirror_left_and_right_is_refused_at_check_time(config_values: dict[str, Any]) -> None:
    config_values["data"]["flip"] = True
    with pytest.raises(InputError, match="change in a mirror"):
        check_run(parse_config(config_values, "c"), 1)
    for pairs in ({"left": "right"}, {}):
        config_values["data"]["flip_labels"] = pairs
        check_run(parse_config(config_values, "c"), 1)
    config_values["data"]["flip_labels"] = {"left": "wrong"}
    with pytest.raises(InputError, match="no label 'wrong'"):
        check_run(parse_config(config_values, "c"), 1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"flip": True, "flip_labels": {"a": "b", "b": "c"}}, "gives 'b' two partners"),
        ({"flip": False, "flip_labels": {"a": "b"}}, "flip_labels has no effect with flip: false"),
        ({"order": "node_local"}, "virtual_nodes belong together"),
        ({"virtual_nodes": 4}, "virtual_nodes belong together"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(
    config_values: dict[str, Any], changes: dict[str, Any], sentence: str
) -> None:
    config_values["data"] |= changes
    with pytest.raises(InputError, match=sentence):
        parse_config(config_values, "c")


def test_mirrored_test_crops_need_a_set_that_may_be_mirrored(config_values: dict[str, Any]) -> None:
    config_values["evaluation"] = {"crops": 10}
    with pytest.raises(InputError, match=r"crops: 10 mirrors half of the crops, but data\.flip is false"):
        parse_config(config_values, "c")
    config_values["data"] |= {"flip": True, "flip_labels": {"left": "right"}}
    with pytest.raises(InputError, match="flip_labels changes their labels"):
        parse_config(config_values, "c")
