"""The convolution that reads shifted features without making them, against a convolution of features shifted by a loop."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from hpcvideo.models.temporal_shift import ShiftableConvolution, TemporalShift


def shift_by_loop(features, frames, divisor, causal):
    fold = features.shape[1] // divisor
    out = features.clone()
    for row in range(len(features)):
        frame = row % frames
        for channel in range(fold if causal else 2 * fold):
            neighbour = frame - 1 if causal or channel >= fold else frame + 1
            inside = 0 <= neighbour < frames
            out[row, channel] = features[row - frame + neighbour, channel] if inside else 0
    return out


def make(channels=16, out=5, kernel=1, dtype=torch.float64):
    torch.manual_seed(2)
    return ShiftableConvolution(channels, out, kernel, padding=kernel // 2, bias=False).to(dtype)


def features_of(rows, channels, dtype=torch.float64, channels_last=True, size=3):
    torch.manual_seed(1)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.randn(rows, channels, size, size + 1, dtype=dtype).contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("frames", "kernel", "divisor"), [(4, 1, 8), (1, 1, 8), (3, 1, 3), (4, 3, 8), (2, 1, 17)])
def test_output_and_gradients_equal_those_of_the_loop(frames, kernel, divisor, causal, channels_last):
    convolution, shift = make(kernel=kernel), TemporalShift(frames, divisor, causal)
    ours = features_of(2 * frames, 16, channels_last=channels_last)
    theirs = features_of(2 * frames, 16, channels_last=False)
    before = ours.detach().clone()
    out = convolution(ours, shift)
    expected = F.conv2d(shift_by_loop(theirs, frames, divisor, causal), convolution.weight, padding=kernel // 2)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours, before), "the identity path reads the features afterwards"
    weight = torch.randn_like(expected)
    (ours_in, ours_weight) = torch.autograd.grad((out * weight).sum(), (ours, convolution.weight))
    (in_, weight_) = torch.autograd.grad((expected * weight).sum(), (theirs, convolution.weight))
    torch.testing.assert_close(ours_in, in_, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours_weight, weight_, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_first_and_second_gradients_in_double_precision(causal):
    convolution, shift = make(channels=5, out=2), TemporalShift(3, 2, causal)
    features = features_of(3, 5, size=1)
    weight = convolution.weight.detach().requires_grad_()

    def run(features, weight):
        return torch.func.functional_call(convolution, {"weight": weight}, (features, shift))

    assert torch.autograd.gradcheck(run, (features, weight))
    assert torch.autograd.gradgradcheck(run, (features, weight))


def saved_storages(function):
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        out = function()
    return kept, out


def test_the_shift_keeps_no_memory_of_its_own_for_backward():
    convolution, shift = make(channels=64, out=8, dtype=torch.float32), TemporalShift(4)
    features = features_of(8, 64, torch.float32)
    with_shift, _ = saved_storages(lambda: convolution(features, shift))
    without, _ = saved_storages(lambda: convolution(features))
    assert sum(with_shift.values()) == sum(without.values())
    assert features.untyped_storage()._cdata in with_shift


def test_forward_copies_only_the_channels_that_move():
    convolution, shift = make(channels=64, out=8, dtype=torch.float32), TemporalShift(4)
    features = features_of(8, 64, torch.float32, size=16).detach()

    def allocated(run):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler, torch.no_grad():
            run()
        events = profiler.profiler.kineto_results.events()
        return sum(max(0, event.nbytes()) for event in events if event.name() == "[memory]")

    out_bytes = convolution(features, shift).nbytes
    assert features.is_contiguous(memory_format=torch.channels_last)
    measured = allocated(lambda: convolution(features, shift))
    assert features.nbytes // 4 + out_bytes <= measured < features.nbytes // 4 + out_bytes + features.nbytes // 8
    assert allocated(lambda: convolution(shift(features))) >= features.nbytes + out_bytes


def test_autocast_gives_its_dtype_and_gradients_in_the_parameters_own():
    convolution, shift = make(channels=64, out=8, dtype=torch.float32), TemporalShift(4)
    features = features_of(8, 64, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = convolution(features, shift)
        reference = convolution(shift(features))
    assert out.dtype == reference.dtype == torch.bfloat16
    torch.testing.assert_close(out, reference, rtol=2e-2, atol=2e-2)
    out.float().square().sum().backward()
    assert convolution.weight.grad.dtype == features.grad.dtype == torch.float32


@pytest.mark.parametrize("channels_last", [False, True])
def test_compiled_without_graph_breaks_and_equal(channels_last):
    convolution, shift = make(), TemporalShift(4)
    features = features_of(8, 16, channels_last=channels_last)
    compiled = torch.compile(lambda x: convolution(x, shift), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(features), convolution(features, shift))
    gradients = [torch.autograd.grad(f(features).square().sum(), (features, convolution.weight))
                 for f in (compiled, lambda x: convolution(x, shift))]  # fmt: skip
    torch.testing.assert_close(gradients[0], gradients[1])
