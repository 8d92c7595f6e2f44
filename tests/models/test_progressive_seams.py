"""Networks in fragments against whole-clip networks in which no tap looks right across a seam (PGT's propositions)."""

from itertools import accumulate

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from hpcvideo.models import create_model
from hpcvideo.models.inflated import InflatedResNet
from hpcvideo.models.progressive_state import State
from hpcvideo.models.progressive_x3d import ProgressiveX3d
from hpcvideo.models.temporal_convolution import InflatedBottleneck
from tests.models.progressive_reference import convolve, fragment_logits, norm, resnet_map, slowfast_maps

SIZE = 24
NETS = [
    ("progressive_slowonly_resnet26", {"width": 8}),
    ("progressive_i3d_resnet26", {"width": 8, "channels_last": True}),
    ("progressive_i3d_resnet26_3x3x3", {"width": 8}),
    ("progressive_slowfast_resnet26", {"width": 16}),
    ("progressive_x3d_s", {"width": 8, "squeeze": "frame"}),
    ("progressive_tsm_resnet18", {"width": 16}),
]


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors: a second thread would only wait, and on a busy machine long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def placed(nets, places=("lean", "every_block")):
    """The nets with each place of the state; TSM has but one."""
    return [
        (name, options if "tsm" in name else options | {"state": place})
        for name, options in nets
        for place in (places[:1] if "tsm" in name else places)
    ]


def make(name, frames=8, **options):
    """A small net in fp64 with statistics, scales and shifts of some size, in evaluation mode."""
    torch.manual_seed(3)
    if "x3d" in name:  # one block a layer, two in the first: the published 26 take their time
        model = ProgressiveX3d(5, frames, blocks=(2, 1, 1, 1), **options)
    else:
        model = create_model(name, 5, frames, **options)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if "running_mean" in key or key.endswith("bias"):
                value.normal_(0, 0.2)
            elif "running_var" in key:
                value.uniform_(0.5, 1.5)
        model.fc.weight.normal_(0, 0.3)
    return model.double().eval()


def clips_of(frames, batch=2):
    torch.manual_seed(4)
    return torch.randn(batch, frames, 3, SIZE, SIZE, dtype=torch.float64)


def in_fragments(model, clips, cuts, state=None):
    """[batch, fragments, classes] and the last state."""
    state, logits = model.first_state() if state is None else state, []
    for piece in clips.split(cuts, 1):
        out, state = model.fragment(piece, state)
        logits.append(out)
    return torch.stack(logits, 1), state


def equal(ours, theirs, tolerance=1e-10):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def cuts_of(name):
    return [8, 4, 5] if "slowfast" in name else [3, 2, 1, 2]


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


@pytest.mark.parametrize("cuts", [[12], [4, 8], [8, 4], [4, 4, 4]])
@pytest.mark.parametrize(("name", "options"), placed(NETS))
def test_p4_causal_fragments_of_any_cut_equal_the_whole_clip(name, options, cuts):
    model = make(name, causal=True, head_state="running", **options)
    clips = clips_of(12)
    with torch.no_grad():
        ours, _ = in_fragments(model, clips, cuts)
        equal(ours[:, -1], model(clips))
        if "slowfast" not in name and "i3d" not in name:
            single, _ = in_fragments(model, clips, [1, 5, 1, 1, 4])
            equal(single[:, -1], model(clips))


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


def test_lean_state_is_kept_in_front_of_temporal_convolutions_alone():
    clips = clips_of(4)
    lean, every = (make("progressive_slowonly_resnet26", width=8, state=place) for place in ("lean", "every_block"))
    (_, lean_state), (_, every_state) = lean.fragment(clips, State()), every.fragment(clips, State())
    assert list(lean_state) == [f"layer{layer}.{index}.conv1" for layer in (3, 4) for index in (0, 1)]
    assert list(every_state) == [f"layer{layer}.{index}" for layer in range(1, 5) for index in (0, 1)]
    i3d = make("progressive_i3d_resnet26_3x3x3", width=8, head_state="cached")
    names = list(i3d.fragment(clips, State())[1])
    assert names == ["conv1", *(f"layer{layer}.{index}.conv2" for layer in range(1, 5) for index in (0, 1)), "head"]


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


def test_the_kept_frames_of_the_head_are_pooled_with_the_new_ones():
    clips = clips_of(5)
    plain, cached = (make("progressive_slowonly_resnet26", width=8, head_state=kind) for kind in ("none", "cached"))
    ends = [3, 5]
    (features, _), = resnet_map(clips, plain.state_dict(), ends)
    vectors = features.mean((3, 4))
    with torch.no_grad():
        logits, state = in_fragments(cached, clips, [3, 2])
        equal(logits[:, 0], plain.fc(vectors[:, :, :3].mean(2)))
        equal(logits[:, 1], plain.fc(vectors[:, :, 2:].mean(2)))
        equal(state["head"], features[:, :, -1:])


@pytest.mark.parametrize("head_state", ["none", "cached", "running"])
def test_a_maximum_over_time_is_pooled_as_the_head_s_state_says(head_state):
    clips = clips_of(6)
    model = make("progressive_slowonly_resnet26", width=8, head_state=head_state, time_pool="max")
    (features, _), = resnet_map(clips, model.state_dict(), [2, 4, 6])
    first = {"none": 4, "cached": 3, "running": 0}[head_state]
    with torch.no_grad():
        ours, _ = in_fragments(model, clips, [2, 2, 2])
        equal(ours[:, -1], model.fc(features.mean((3, 4))[:, :, first:].amax(2)))


def test_bins_of_a_whole_clip_are_classified_for_themselves():
    clips = clips_of(10)
    model = make("progressive_slowonly_resnet26", width=8)
    (features, _), = resnet_map(clips, model.state_dict(), [10])
    vectors = features.mean((3, 4))
    spans = [(0, 3), (2, 5), (5, 8), (7, 10)]  # ten frames in four adaptive spans
    with torch.no_grad():
        bins = model.bin_logits(clips, 4)
        equal(bins, torch.stack([model.fc(vectors[:, :, a:b].mean(2)) for a, b in spans], 1))
        equal(model.bin_logits(clips, 1)[:, 0], model(clips))


def test_squeeze_excitation_over_the_clip_sees_the_fragment_alone():
    """The rule at seams: each fragment is gated by its own mean; so a whole clip is not the sum of its fragments."""
    model = make("progressive_x3d_s", width=8, squeeze="clip")
    gates = []
    model.layer1[0].excite.expand.register_forward_hook(lambda _, __, out: gates.append(out))
    clips = clips_of(6)
    with torch.no_grad():
        in_fragments(model, clips, [4, 2])
        model(clips)
    assert [gate.shape[2] for gate in gates] == [1, 1, 1]
    state = model.state_dict()
    x = convolve(clips.transpose(1, 2), state["conv1.weight"], [4, 6], 2)
    x = torch.relu(norm(convolve(x, state["conv2.weight"], [4, 6], groups=8), state, "bn1"))
    x = torch.relu(norm(convolve(x, state["layer1.0.conv1.weight"], [4, 6]), state, "layer1.0.bn1"))
    weight = state["layer1.0.conv2.weight"]
    x = norm(convolve(x, weight, [4, 6], 2, groups=len(weight)), state, "layer1.0.bn2")
    excite = model.layer1[0].excite
    for gate, part in zip(gates, (x[:, :, :4], x[:, :, 4:]), strict=False):
        with torch.no_grad():
            equal(gate, excite.expand(torch.relu(excite.reduce(part.mean((2, 3, 4), keepdim=True)))))


def test_slowfast_reads_every_alpha_th_frame_in_its_slow_pathway():
    model = make("progressive_slowfast_resnet26", width=16, frames=8)
    clips = clips_of(8)
    (slow, _), (fast, _) = slowfast_maps(clips, model.state_dict(), [8])
    assert (slow.shape[2], fast.shape[2]) == (2, 8)
    assert (model.overlap, model.frame_multiple) == (4, 4)
    with torch.no_grad():
        state = model.fragment(clips, model.first_state())[1]
    frames = {name: tensor.shape[2] for name, tensor in state.items()}
    assert frames["slow.layer4.1.conv1"] == 1 and frames["fast.layer4.1.conv1"] == 1 and frames["fast.conv1"] == 2
    assert frames["lateral.3.conv"] == 2


@pytest.mark.parametrize(("name", "options"), placed([NETS[0], NETS[3], NETS[5]]))
def test_no_video_of_a_batch_sees_another_and_a_state_can_be_dealt_anew(name, options):
    model, clips = make(name, **options), clips_of(12, batch=3)
    first, later = clips[:, :4], clips[:, 4:8]
    with torch.no_grad():
        _, state = model.fragment(first, model.first_state())
        out, _ = model.fragment(later, state)
        picked, _ = model.fragment(later[[2, 0]], State.from_tensors(state.select([2, 0]).tensors()))
        changed = first.clone()
        changed[0] += 1
        other, _ = model.fragment(later, model.fragment(changed, model.first_state())[1])
    equal(picked, out[[2, 0]])
    equal(other[1:], out[1:])
    assert (other[0] - out[0]).abs().max() > 1e-6


def test_a_reset_forgets_the_video_before_and_a_kept_state_does_not():
    model, clips = make("progressive_slowonly_resnet26", width=8), clips_of(8)
    with torch.no_grad():
        first, state = model.fragment(clips[:, :4], model.first_state())
        again, _ = model.fragment(clips[:, :4], model.first_state())
        leaked, _ = model.fragment(clips[:, :4], state)
    assert torch.equal(first, again)
    assert (first - leaked).abs().max() > 1e-4


def test_p5_detached_no_gradient_reaches_the_frames_before_a_seam_and_otherwise_it_does():
    clips = clips_of(6)
    model = make("progressive_slowonly_resnet26", width=8)
    for detached in (True, False):
        video = clips.clone().requires_grad_()
        _, state = model.fragment(video[:, :3], model.first_state())
        out, _ = model.fragment(video[:, 3:], state.detach() if detached else state)
        (gradient,) = torch.autograd.grad(out.sum(), video)
        assert bool((gradient[:, :3] == 0).all()) is detached
        assert (gradient[:, 3:] != 0).any()


@pytest.mark.parametrize(("name", "width"), [("progressive_slowonly_resnet26", 16), ("progressive_tsm_resnet18", 16)])
def test_the_lean_state_keeps_no_copy_of_features_for_backward(name, width):
    model = make(name, width=width).train()
    clips = clips_of(8, batch=1)
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}

    def kept(run):
        found = {}
        with saved_tensors_hooks(
            lambda tensor: found.setdefault(tensor.untyped_storage()._cdata, tensor), lambda tensor: tensor
        ):
            run()
        return sum(tensor.untyped_storage().nbytes() for key, tensor in found.items() if key not in own)

    with torch.no_grad():
        state = model.fragment(clips, model.first_state())[1]
    plain, fragment = kept(lambda: model(clips)), kept(lambda: model.fragment(clips, state))
    assert fragment < 1.05 * plain


def test_what_does_not_fit_is_refused():
    model, clips = make("progressive_slowonly_resnet26", width=8), clips_of(4)
    with torch.no_grad():
        state = model.fragment(clips, model.first_state())[1]
        other = make("progressive_slowonly_resnet26", width=8, state="every_block").fragment(clips, State())[1]
    lacking = State({name: tensor for name, tensor in state.items() if name != "layer4.0.conv1"})
    wrong = [
        (clips[:1], state, "keep their batch and frame size"),
        (torch.cat([clips, clips], 3), state, r"state of layer3\.0\.conv1"),
        (clips, other, r"not one of this model: it has \['layer1\.0'"),
        (clips, lacking, r"lacks \['layer4\.0\.conv1'\]"),
        (clips[:, :0], State(), "1 or more frames"),
        (clips[0], State(), "1 or more frames"),
    ]
    for given, before, reason in wrong:
        with pytest.raises(ValueError, match=reason):
            model.fragment(given, before)


def test_layers_in_a_row_are_the_whole_clip():
    for name, options in NETS:
        for pool in ("avg", "max"):
            model = make(name, **options, time_pool=pool)
            clips = clips_of(8)
            features = clips
            with torch.no_grad():
                for _, layer in model.layers():
                    features = layer(features)
                equal(features, model(clips))


def test_models_of_all_published_shapes_can_be_cut_as_published():
    """(name, frames of the first fragment, overlap, frames of the video): 5 fragments each, by S x nf - (S - 1) x ov."""
    for name, first, overlap, frames in (
        ("progressive_slowonly_resnet50", 8, 1, 36),
        ("progressive_slowfast_resnet50", 32, 4, 144),
    ):
        with torch.device("meta"):
            model = create_model(name, 400, frames, state="every_block", head_state="cached", momentum=0.25)
            clips = torch.empty(1, frames, 3, 64, 64)
        model.requires_grad_(False)
        assert model.overlap == overlap
        cuts = [first] + [first - overlap] * 4
        assert sum(cuts) == frames
        logits, state = in_fragments(model, clips, cuts)
        assert logits.shape == (1, 5, 400)
        blocks = [block for block in model.modules() if isinstance(block, InflatedBottleneck)]
        heads, stems = (2, 1) if "slowfast" in name else (1, 0)
        lateral = 4 * (heads - 1)
        assert len(state) == len(blocks) + heads + stems + lateral
