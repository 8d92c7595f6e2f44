"""Averages over views, however the views are cut into batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.training.view_average import ViewAverage


@given(st.integers(2, 6), st.integers(1, 5), st.integers(1, 9), st.booleans())
def test_outputs_are_averaged_by_video_whatever_the_batches(views: int, videos: int, batch: int, softmax: bool) -> None:
    outputs = torch.randn(videos * views, 3, generator=torch.Generator().manual_seed(views * 100 + videos))
    labels = torch.arange(1, videos + 1).repeat_interleave(views)
    weights = torch.ones(videos * views)
    weights[-1] = labels[-1] = 0  # one view of the last video could not be read
    padded = -(-videos * views // batch) * batch
    rows = torch.cat([outputs, torch.zeros(padded - len(outputs), 3)])
    all_labels = torch.cat([labels, torch.zeros(padded - len(labels), dtype=torch.int64)])
    all_weights = torch.cat([weights, torch.zeros(padded - len(weights))])
    numbers = torch.cat([torch.arange(views).repeat(videos), torch.zeros(padded - len(labels), dtype=torch.int64)])
    average = ViewAverage(views, softmax)
    answers = []
    for begin in range(0, padded, batch):
        part = slice(begin, begin + batch)
        piece = {"labels": all_labels[part], "weights": all_weights[part], "views": numbers[part]}
        if (answer := average.add(rows[part], piece)) is not None:
            answers.append(answer)
    found = torch.cat([values for values, _ in answers])
    assert torch.cat([one["labels"] for _, one in answers]).tolist() == list(range(1, videos + 1))
    assert torch.cat([one["weights"] for _, one in answers]).tolist() == [1.0] * videos
    for video in range(videos):
        own = outputs[video * views : (video + 1) * views]
        if video == videos - 1:
            own = own[:-1]
        expected = (own.exp() / own.exp().sum(1, keepdim=True)).mean(0).log() if softmax else own.mean(0)
        torch.testing.assert_close(found[video], expected)


def test_a_video_none_of_whose_views_was_read_does_not_count() -> None:
    answer = ViewAverage(2).add(
        torch.randn(2, 3), {"labels": torch.zeros(2, dtype=torch.int64), "weights": torch.zeros(2), "views": torch.arange(2)}
    )
    assert answer is not None and answer[1]["weights"].tolist() == [0.0]


@pytest.mark.parametrize("softmax", [False, True])
def test_one_view_goes_through_as_it_is(softmax: bool) -> None:
    outputs, batch = torch.randn(3, 2, 5), {"labels": torch.arange(3)}
    answer = ViewAverage(1, softmax).add(outputs, batch)
    assert answer is not None and answer[0] is outputs and answer[1] is batch


def test_tables_of_different_length_are_filled_up_with_minus_1() -> None:
    average = ViewAverage(2)
    several = {"weights": torch.ones(3), "labels": torch.zeros(3, dtype=torch.int64), "views": torch.tensor([0, 1, 0]),
               "action_labels": torch.tensor([[3], [3], [4]])}  # fmt: skip
    later = {"weights": torch.tensor([0.0, 1.0, 1.0]), "labels": torch.zeros(3, dtype=torch.int64),
             "views": torch.tensor([1, 0, 1]), "action_labels": torch.tensor([[4, -1], [5, 6], [5, 6]])}  # fmt: skip
    assert average.add(torch.zeros(3, 1), several) is not None
    answer = average.add(torch.zeros(3, 1), later)
    assert answer is not None and answer[1]["action_labels"].tolist() == [[4, -1], [5, 6]]
