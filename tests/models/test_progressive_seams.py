"""Networks in fragments against whole-clip networks in which no tap looks right across a seam (PGT's propositions)."""

from itertools import accumulate

import pytest
import torch

from hpcvideo.models import create_model
from hpcvideo.models.inflated import InflatedResNet
from tests.models.progressive_nets import NETS, clips_of, cuts_of, equal, in_fragments, make, placed
from tests.models.progressive_reference import fragment_logits

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("name", "options"), placed(NETS))
def test_p2_fragments_equal_the_whole_clip_whose_taps_do_not_look_right_across_a_seam(name, options):
    model, cuts = make(name, **options), cuts_of(name)
    clips = clips_of(sum(cuts))
    ends = list(accumulate(cuts))
    learned = {key for key, _ in model.named_parameters()}
    state = {key: value.clone().requires_grad_(key in learned) for key, value in model.state_dict().items()}
    expected = fragment_logits(name, clips, state, ends)
    ours, _ = in_fragments(model, clips, cuts)
    assert expected.abs().max() > 0.1
    equal(ours, expected)
    # P6: without a detach at the seams the gradient is that of the whole.
    ours.square().sum().backward()
    expected.square().sum().backward()
    for key, parameter in model.named_parameters():
        equal(parameter.grad, state[key].grad, 1e-8)


@pytest.mark.parametrize("name", ["progressive_slowonly_resnet26", "progressive_tsm_resnet18"])
def test_p3_so_many_frames_around_a_seam_as_there_are_temporal_layers_differ_from_the_ordinary_whole_clip(name):
    """Right of it one less: the first such layer only fails to look ahead at the last frame before the seam."""
    model = make(name, width=16)
    layers, seam = (4, 8) if "slowonly" in name else (8, 12)
    clips = clips_of(2 * seam, batch=1)
    seen = []
    model.layer4[-1].relu.register_forward_hook(lambda _, __, out: seen.append(out.detach().clone()))

    def maps(cuts):
        seen.clear()
        with torch.no_grad():
            in_fragments(model, clips, cuts)
        per_call = 3 if "slowonly" in name else 2
        outs = seen[per_call - 1 :: per_call]
        return torch.cat([out if "tsm" in name else out.transpose(1, 2).flatten(0, 1) for out in outs])

    whole, cut = maps([2 * seam]), maps([seam, seam])
    differ = [frame for frame in range(2 * seam) if (whole[frame] - cut[frame]).abs().max() > 1e-12]
    assert differ == list(range(seam - layers, seam + layers - 1))


@pytest.mark.parametrize(("name", "options"), placed(NETS))
def test_p4_causal_fragments_of_any_cut_equal_the_whole_clip_and_so_do_their_gradients(name, options):
    model = make(name, causal=True, head_state="running", **options)
    clips = clips_of(12)
    cuts = [[12], [4, 8], [4, 4, 4]] if "slowfast" in name else [[12], [5, 7], [1, 5, 1, 1, 4]]
    whole = model(clips)
    expected = torch.autograd.grad(whole.square().sum(), list(model.parameters()))
    for one in cuts:
        ours, _ = in_fragments(model, clips, one)
        equal(ours[:, -1], whole)
        # And what is trained with gradients across the seams is the whole clip.
        found = torch.autograd.grad(ours[:, -1].square().sum(), list(model.parameters()))
        for gradient, reference in zip(found, expected, strict=True):
            equal(gradient, reference, 1e-8)


@pytest.mark.parametrize("name", ["progressive_slowonly_resnet26", "progressive_slowfast_resnet26", "progressive_x3d_s"])
def test_the_causal_whole_clip_is_the_one_written_out(name):
    options = dict(NETS)[name]
    model = make(name, causal=True, **options)
    clips = clips_of(8)
    with torch.no_grad():
        equal(model(clips), fragment_logits(name, clips, model.state_dict(), [8], causal=True)[:, 0])


def test_p4_needs_an_overlap_as_long_as_the_kernels_look_back():
    clips = clips_of(8)
    for place in ("lean", "every_block"):
        for overlap, same in ((1, False), (2, True), (3, True)):
            model = make(
                "progressive_slowonly_resnet26", width=8, causal=True, overlap=overlap, state=place, head_state="running"
            )
            with torch.no_grad():
                ours, _ = in_fragments(model, clips, [4, 4])
                assert torch.allclose(ours[:, -1], model(clips), rtol=1e-10, atol=1e-10) is same


@pytest.mark.parametrize("place", ["lean", "every_block"])
def test_p7_last_frames_reach_so_far_as_the_net_and_a_maximum_mean_or_momentum_over_the_whole_video(place):
    clips = clips_of(16)
    changed = clips.clone()
    changed[:, 0] += 1
    for options, far in (({}, False), ({"carry": "max"}, True), ({"carry": "avg"}, True), ({"momentum": 0.5}, True)):
        model = make("progressive_slowonly_resnet26", width=8, overlap=1, state=place, **options)
        with torch.no_grad():
            one, two = (in_fragments(model, given, [2] * 8)[0] for given in (clips, changed))
        differ = (one != two).flatten(2).any(2).any(0)
        assert differ[:2].all()
        assert bool(differ[-1]) is far
        if not far:  # four convolutions carry frame 0 into frame 4, in the third fragment
            assert differ.tolist() == [True] * 3 + [False] * 5


CARRIES = [{}, {"momentum": 0.25}, {"carry": "max", "momentum": 0.25}, {"carry": "avg", "overlap": 3}]


@pytest.mark.parametrize("carried", CARRIES)
@pytest.mark.parametrize("name", ["progressive_slowonly_resnet26", "progressive_i3d_resnet26_3x3x3"])
def test_p9_state_where_no_kernel_spans_frames_changes_nothing_with_frozen_statistics_and_does_with_batch_ones(
    name, carried
):
    if "3x3x3" in name and carried:
        carried = {"overlap": 2}  # a maximum in front of a block's first convolution is not one in front of its second
    clips, cuts = clips_of(8), [3, 2, 3]
    models = [make(name, width=8, state=place, **carried) for place in ("lean", "every_block")]
    outs = [in_fragments(model, clips, cuts)[0] for model in models]
    equal(*outs)
    for model, out in zip(models, outs, strict=True):
        out.square().sum().backward()
        model.train()
    for one, two in zip(*(model.parameters() for model in models), strict=True):
        equal(one.grad, two.grad, 1e-8)
    for model in models:
        model.dropout.p = 0.0
    one, two = (in_fragments(model, clips, cuts)[0] for model in models)
    assert (one - two).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "options"), [NETS[0], NETS[1], NETS[5]])
def test_p12_without_a_state_it_is_the_network_of_the_same_weights(name, options):
    model = make(name, **options)
    clips = clips_of(8)
    if "tsm" in name:
        twin = create_model("tsm_resnet18", 5, 8, **options)
    else:
        late = {"inflated_blocks": "late", "stem_taps": 1} if "slowonly" in name else {}
        twin = InflatedResNet(18, 5, 8, kernel="3x1x1", **late, **options)
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = twin.double().eval()(clips)
        equal(model(clips), expected)
        equal(model.fragment(clips, model.first_state())[0], expected)
