"""The shift against a loop that says it word by word, and its gradient against finite differences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcvideo.models import TemporalShift, shift_frames
from hpcvideo.models.temporal_shift import shift_onwards


def shift_by_loop(features: torch.Tensor, frames: int, fold_divisor: int) -> torch.Tensor:
    out = features.clone()
    fold = features.shape[1] // fold_divisor
    for row in range(features.shape[0]):
        frame = row % frames
        for channel in range(2 * fold):
            neighbour = frame + 1 if channel < fold else frame - 1
            if 0 <= neighbour < frames:
                out[row, channel] = features[row - frame + neighbour, channel]
            else:
                out[row, channel] = 0
    return out


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    frames=st.integers(1, 5),
    channels=st.integers(1, 19),
    divisor=st.integers(2, 9),
    channels_last=st.booleans(),
)
def test_shift_equals_the_loop_for_any_shape(batch, frames, channels, divisor, channels_last):
    features = torch.randn(batch * frames, channels, 2, 3)
    if channels_last:
        features = features.contiguous(memory_format=torch.channels_last)
    before = features.clone()
    shifted = shift_frames(features, frames, divisor)
    assert torch.equal(shifted, shift_by_loop(features, frames, divisor))
    assert torch.equal(features, before), "the input must stay as it was: the identity path reads it"
    assert shifted.data_ptr() != features.data_ptr()


def test_first_fold_looks_ahead_second_fold_back_and_ends_are_zero():
    features = torch.arange(1.0, 4.0).view(3, 1, 1, 1).expand(3, 8, 1, 1)
    shifted = shift_frames(features, frames=3)[:, :, 0, 0]
    assert shifted[:, 0].tolist() == [2, 3, 0]
    assert shifted[:, 1].tolist() == [0, 1, 2]
    assert shifted[:, 2].tolist() == [1, 2, 3]


def test_gradient_and_second_gradient_in_double_precision():
    features = torch.randn(2 * 3, 9, 2, 2, dtype=torch.float64, requires_grad=True)

    def shifted_square(x):
        return shift_frames(x, 3, 4) ** 2

    assert torch.autograd.gradcheck(lambda x: shift_frames(x, 3, 4), features)
    assert torch.autograd.gradgradcheck(shifted_square, features)


def test_gradient_equals_that_of_autograd_through_the_loop():
    features = torch.randn(2 * 4, 16, 3, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2 * 4, 16, 3, 3, dtype=torch.float64)
    (ours,) = torch.autograd.grad((shift_frames(features, 4) * weight).sum(), features)
    (reference,) = torch.autograd.grad((shift_by_loop(features, 4, 8) * weight).sum(), features)
    assert torch.equal(ours, reference)


def test_memory_format_stays_channels_last():
    features = torch.randn(8, 16, 4, 4).contiguous(memory_format=torch.channels_last)
    assert shift_frames(features, 8).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_are_moved_not_changed_in_any_dtype(dtype):
    features = torch.randn(6, 8, 2, 2).to(dtype)
    assert torch.equal(shift_frames(features, 3), shift_by_loop(features, 3, 8))


def test_module_has_no_state():
    assert not TemporalShift(8).state_dict()


def test_features_that_are_no_whole_clips_are_refused():
    with pytest.raises(ValueError, match="7 frames of features are no whole number of clips of 4"):
        shift_frames(torch.zeros(7, 8, 1, 1), frames=4)
    with pytest.raises(ValueError, match="fold_divisor = 1"):
        shift_frames(torch.zeros(8, 8, 1, 1), frames=4, fold_divisor=1)


def test_causal_shift_moves_one_fold_from_the_frame_before():
    features = torch.arange(1.0, 4.0).view(3, 1, 1, 1).expand(3, 8, 1, 1)
    shifted = shift_frames(features, frames=3, causal=True)[:, :, 0, 0]
    assert shifted[:, 0].tolist() == [0, 1, 2]
    assert all(shifted[:, channel].tolist() == [1, 2, 3] for channel in range(1, 8))
    features = torch.randn(2 * 3, 9, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: shift_frames(x, 3, 4, causal=True), features)


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 3), pieces=st.lists(st.integers(1, 3), min_size=1, max_size=4), divisor=st.integers(2, 9))
def test_pieces_of_a_stream_shift_as_the_whole(batch, pieces, divisor):
    frames = sum(pieces)
    video = torch.randn(batch, frames, 12, 2, 2)
    before = torch.zeros(batch, 12 // divisor, 2, 2)
    out = []
    for piece in video.split(pieces, 1):
        shifted, before = shift_onwards(piece.flatten(0, 1), before)
        out.append(shifted.unflatten(0, (batch, -1)))
    whole = shift_frames(video.flatten(0, 1), frames, divisor, causal=True).unflatten(0, (batch, -1))
    assert torch.equal(torch.cat(out, 1), whole)
