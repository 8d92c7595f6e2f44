"""The state object, what is kept of features, and convolutions that look back, against adaptive pooling and whole clips."""

import pytest
import torch
import torch.nn.functional as F

from hpcvideo.errors import InputError
from hpcvideo.models import create_model, load_weights, model_options
from hpcvideo.models.first_frames import add_to_first
from hpcvideo.models.progressive_network import FragmentNetwork
from hpcvideo.models.progressive_state import Carry, State
from hpcvideo.models.temporal_convolution import TemporalConvolution

pytestmark = pytest.mark.usefixtures("one_thread")


def features_of(frames, batch=2):
    return torch.randn(batch, 3, frames, 4, 5, dtype=torch.float64)


def test_a_state_is_a_mapping_that_does_not_change():
    tensors = {"one": torch.randn(3, 2), "two": torch.randn(3, 4, 1, 2, 2, requires_grad=True)}
    state = State(tensors)
    tensors["three"] = torch.zeros(3)
    assert list(state) == ["one", "two"] and len(state) == 2 and "three" not in state
    given = state.tensors()
    given.clear()
    assert len(state) == 2 and state and not State()
    with pytest.raises(TypeError):
        state["one"] = torch.zeros(3)
    assert State.from_tensors(state.tensors()) == state
    assert repr(state) == "State(one: [3, 2], two: [3, 4, 1, 2, 2])"


def test_rows_of_a_state_are_copies_through_which_gradients_flow_until_it_is_detached():
    state = State({"one": torch.arange(6.0).view(3, 2).requires_grad_()})
    picked = state.select([2, 0])
    assert picked["one"].tolist() == [[4, 5], [0, 1]] and picked["one"].requires_grad
    assert state.select(torch.tensor([False, True, False]))["one"].tolist() == [[2, 3]]
    assert not state.detach()["one"].requires_grad and state["one"].requires_grad
    assert state.to("meta")["one"].is_meta


def test_tensors_of_two_batches_are_no_state():
    with pytest.raises(ValueError, match=r"batches of \[2, 3\]"):
        State({"one": torch.zeros(2, 1), "two": torch.zeros(3, 1)})


def test_in_bf16_a_convolution_looks_back_as_in_the_whole():
    torch.manual_seed(1)
    module, video = TemporalConvolution(4, 4, 1, taps=3), torch.randn(2, 4, 6, 5, 5)
    seen = video[:, :, :3].bfloat16()  # as a layer under autocast hands it on
    with torch.autocast("cpu", torch.bfloat16):
        whole, ours = module(video), module.onwards(video[:, :, 3:], seen)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, whole[:, :, 3:], rtol=0.02, atol=0.02)
    (one,) = torch.autograd.grad(ours.float().square().sum(), module.weight, retain_graph=True)
    (two,) = torch.autograd.grad(whole[:, :, 3:].float().square().sum(), module.weight)
    torch.testing.assert_close(one, two, rtol=0.05, atol=0.3)


POOLS = {"max": F.adaptive_max_pool3d, "avg": F.adaptive_avg_pool3d}


@pytest.mark.parametrize(("older", "new", "frames"), [(0, 8, 1), (1, 7, 1), (3, 5, 3), (2, 3, 2), (3, 1, 3), (4, 7, 4)])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pooled_frames_are_those_of_adaptive_pooling_of_both_in_a_row(kind, older, new, frames):
    before, features = (features_of(older) if older else None), features_of(new)
    joined = features if before is None else torch.cat([before, features], 2)
    kept = Carry(kind).keep(features, before, frames)
    torch.testing.assert_close(kept, POOLS[kind](joined, (frames, 4, 5)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("older", "new", "frames"), [(0, 8, 2), (0, 1, 2), (1, 1, 2), (2, 1, 2), (1, 1, 4), (2, 5, 2)])
def test_the_last_frames_are_kept_or_all_where_there_are_fewer(older, new, frames):
    before, features = (features_of(older) if older else None), features_of(new)
    joined = features if before is None else torch.cat([before, features], 2)
    assert torch.equal(Carry().keep(features, before, frames), joined[:, :, -frames:])


@pytest.mark.parametrize("kind", ["last", "max", "avg"])
def test_momentum_mixes_what_was_kept_into_what_is_kept(kind):
    before, features = features_of(2), features_of(3)
    plain, mixed = (Carry(kind, momentum).keep(features, before, 2) for momentum in (0.0, 0.25))
    torch.testing.assert_close(mixed, 0.75 * plain + 0.25 * before, rtol=1e-12, atol=1e-12)
    assert torch.equal(Carry(kind, 0.25).keep(features, None, 2), Carry(kind).keep(features, None, 2))


def test_momentum_where_fewer_frames_were_kept_than_are_now():
    before, features = features_of(1), features_of(2)
    kept = Carry("last", 0.5).keep(features, before, 2)
    assert torch.equal(kept[:, :, 0], features[:, :, 0])
    torch.testing.assert_close(kept[:, :, 1], (features[:, :, 1] + before[:, :, 0]) / 2, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["last", "max", "avg"])
def test_what_is_kept_keeps_no_features_alive(kind):
    kept = Carry(kind).keep(features_of(8), None, 1)
    assert kept.untyped_storage().nbytes() == kept.nbytes


@pytest.mark.parametrize("as_images", [False, True])
def test_an_addition_to_the_first_frames_and_its_gradients(as_images):
    torch.manual_seed(0)
    features, addition = features_of(4).requires_grad_(), features_of(2).requires_grad_()

    def add(features, addition):
        given = features * 1  # a leaf cannot be changed in place
        if as_images:
            given = given.transpose(1, 2).flatten(0, 1)
        return add_to_first(given, addition)

    expected = torch.cat([features[:, :, :2] + addition, features[:, :, 2:]], 2)
    out = add(features, addition)
    assert torch.equal(out.unflatten(0, (2, -1)).transpose(1, 2) if as_images else out, expected)
    assert torch.autograd.gradcheck(add, (features, addition))
    assert torch.autograd.gradgradcheck(add, (features, addition))


REACHES = [(3, None, None), (3, 2, 0), (5, None, None), (5, 4, 0), (5, 1, 3), (3, 2, 2)]
SIZES = [(1, 1, 1, 1), (1, 3, 2, 4), (2, 1, 1, 1), (4, 3, 1, 1)]


@pytest.mark.parametrize(("taps", "before", "after"), REACHES)
@pytest.mark.parametrize(("frame_stride", "size", "stride", "groups"), SIZES)
def test_a_convolution_looks_back_at_kept_frames_as_at_those_of_the_whole(
    taps, before, after, frame_stride, size, stride, groups
):
    """Up to the seam it is the first part of the whole; behind it, the second: but where that part looks ahead."""
    torch.manual_seed(1)
    module = TemporalConvolution(
        4, 4, size, taps=taps, stride=stride, frame_stride=frame_stride, before=before, after=after, groups=groups
    ).double()
    for kept, second in ((4, 4), (8, 4), (1, 8), (4, 1)):
        video = torch.randn(2, 4, 8 + second, 6, 5, dtype=torch.float64)
        part = video[:, :, 8:].clone().requires_grad_()
        seen = video[:, :, 8 - kept : 8].clone().requires_grad_()
        ours = module.onwards(part, seen)
        # Zeros in place of what the kept frames do not hold, then the outputs that stand at the part's frames.
        blank = torch.zeros(2, 4, 8 - kept, 6, 5, dtype=torch.float64)
        joined = torch.cat([blank, seen, part], 2)
        whole = module(joined)[:, :, 8 // frame_stride :]
        torch.testing.assert_close(ours, whole, rtol=1e-11, atol=1e-11)
        inputs = (part, seen, module.weight)
        mine, theirs = (torch.autograd.grad(out.square().sum(), inputs) for out in (ours, whole))
        for one, two in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
        (alone,) = torch.autograd.grad(module.onwards(part, seen.detach()).square().sum(), part)
        assert torch.equal(alone, mine[0])
        module.weight.requires_grad_(False)
        (alone,) = torch.autograd.grad(module.onwards(part, seen.detach()).square().sum(), part)
        torch.testing.assert_close(alone, mine[0], rtol=1e-11, atol=1e-11)
        module.weight.requires_grad_(True)


PAIRS = [
    ("slowonly_resnet50", {"width": 8}),
    ("i3d_resnet50", {"width": 8}),
    ("i3d_resnet50_3x3x3", {"width": 8}),
    ("tsm_resnet50", {"width": 16}),
]


@pytest.mark.parametrize(("name", "options"), PAIRS)
def test_weights_of_the_network_without_state_fit_and_score_alike(name, options):
    torch.manual_seed(2)
    plain = create_model(name, 5, 4, **options).eval()
    model = create_model(f"progressive_{name}", 5, 4, **options).eval()
    told = load_weights(model, plain.state_dict())
    assert (told.unused, told.loaded) == ((), len(plain.state_dict()))
    clips = torch.randn(1, 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(clips), plain(clips), rtol=1e-5, atol=1e-6)


def test_image_weights_are_inflated():
    images = create_model("tsn_resnet50", 5, 4, width=8)
    told = load_weights(create_model("progressive_slowonly_resnet50", 5, 4, width=8), images.state_dict())
    assert "layer4.0.conv1.weight" in told.inflated and not told.unused


def test_options_of_models_in_fragments():
    carried = {"carry": "last", "momentum": 0.0, "head_state": "none", "time_pool": "avg"}
    common = {"zero_gamma": False, "dropout": 0.5, "width": 64, "channels_last": False}
    fragments = {"causal": False, "state": "lean", "overlap": None, **carried}
    assert model_options("progressive_slowonly_resnet50") == fragments | common
    assert model_options("progressive_tsm_resnet50") == {"shift_fraction": 8, "causal": False} | carried | common
    assert model_options("progressive_x3d_s") == {"squeeze": "clip"} | fragments | common | {"width": 24}
    assert model_options("progressive_slowfast_resnet50") == {"alpha": 4, "fast_fraction": 8} | fragments | common
    with torch.device("meta"):
        assert isinstance(create_model("progressive_x3d_m", 400, 16), FragmentNetwork)


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("slowonly_resnet50", {"state": "full"}, "state = 'full': expected one of lean, every_block"),
        ("slowonly_resnet50", {"carry": "mean"}, "carry = 'mean': expected one of last, max, avg"),
        ("slowonly_resnet50", {"head_state": True}, "head_state = True: expected one of none, cached, running"),
        ("slowonly_resnet50", {"time_pool": "sum"}, "time_pool = 'sum': expected one of avg, max"),
        ("slowonly_resnet50", {"momentum": 1.0}, "momentum = 1.0"),
        ("slowonly_resnet50", {"momentum": "0.25"}, "momentum = '0.25'"),
        ("slowonly_resnet50", {"overlap": 0}, "overlap = 0: expected a whole number from 1 on, or none"),
        ("slowonly_resnet50", {"overlap": 1.0}, "overlap = 1.0"),
        ("slowfast_resnet50", {"alpha": 0}, "alpha = 0"),
        ("slowfast_resnet50", {"width": 4}, "fast_fraction = 8: expected a whole number from 1 to the width, 4"),
        ("x3d_s", {"squeeze": "video"}, "squeeze = 'video': expected one of clip, frame"),
        ("x3d_s", {"causal": True}, "causal = True with squeeze = 'clip'"),
    ],
)
def test_options_out_of_range_are_refused(name, options, what):
    with pytest.raises(InputError, match=what):
        create_model(f"progressive_{name}", 5, 8, **options)


def test_tsm_has_no_option_for_the_place_of_its_state():
    with pytest.raises(InputError, match="has no option 'state'"):
        create_model("progressive_tsm_resnet18", 5, 8, state="every_block")
