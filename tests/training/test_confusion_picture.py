"""The picture of a confusion matrix: what it says, and the order in which it puts many classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcvideo.errors import InputError
from hpcvideo.tasks.class_scores import ClassScores
from hpcvideo.training.confusion_order import confusion_order
from hpcvideo.training.confusion_picture import write_confusion_picture


def planted(classes: int, cluster: int) -> tuple[ClassScores, np.ndarray]:
    """Clusters of classes, scattered over the numbers, each member taken for the next one; and each class's cluster."""
    generator = np.random.default_rng(3)
    scattered = generator.permutation(classes)
    confusion = np.diag(np.full(classes, 30))
    of = np.zeros(classes, dtype=int)
    for first in range(0, classes, cluster):
        members = scattered[first : first + cluster]
        of[members] = first // cluster
        for one, other in zip(members, np.roll(members, 1), strict=True):
            confusion[one, other] += 12
    return ClassScores(confusion, confusion.sum(axis=1)), of


def test_classes_that_are_confused_with_each_other_become_neighbours() -> None:
    scores, cluster = planted(96, 6)
    order = confusion_order(scores.confusion)
    assert sorted(order.tolist()) == list(range(96))
    changes = np.count_nonzero(np.diff(cluster[order]))
    assert changes == 96 // 6 - 1, "every cluster in one piece"


def test_classes_that_nothing_confuses_come_last_in_their_own_order() -> None:
    confusion = np.diag([5, 5, 5, 5, 5])
    confusion[1, 4] = 2
    order = confusion_order(confusion).tolist()
    assert set(order[:2]) == {1, 4} and order[2:] == [0, 2, 3]
    assert confusion_order(np.diag([3, 3])).tolist() == [0, 1]


def test_a_picture_of_few_classes_has_every_name_count_and_its_protocol(tmp_path: Path) -> None:
    confusion = np.array([[17, 3, 0], [0, 20, 0], [0, 0, 0]])
    scores = ClassScores(confusion, confusion.diagonal())
    names = ["run $1", "sit", "never"]
    for kind in ("svg", "png"):
        for file in ("a", "b"):
            write_confusion_picture(tmp_path / f"{file}.{kind}", scores, names, "tiny", "top-1 92 %, 1 clip x 1 crop")
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    text = (tmp_path / "a.svg").read_text()
    for said in ("run $1", "sit", "never", ">17<", ">3<", ">20<", "1 labels have no video", "1 clip x 1 crop", "predicted"):
        assert said in text, said
    assert ">0<" not in text, "a cell of zero is empty"
    assert "run $1 as sit: 3 of 20" in text


def test_a_picture_of_400_classes_lists_the_most_confused_and_names_some(tmp_path: Path) -> None:
    scores, _ = planted(400, 5)
    scores.confusion[7, 311] += 25
    names = [f"action {number}" for number in range(400)]
    write_confusion_picture(tmp_path / "many.svg", scores, names, "large", "protocol")
    text = (tmp_path / "many.svg").read_text()
    assert f"action 7 as action 311: {scores.confusion[7, 311]} of {scores.videos[7]}" in text
    assert "one in 4 named" in text and 100 <= text.count(">action ") / 2 <= 130
    assert (tmp_path / "many.svg").stat().st_size < 500_000


def test_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        write_confusion_picture(tmp_path / "a.jpg", planted(8, 2)[0], ["x"] * 8, "", "")
