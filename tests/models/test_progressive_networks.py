"""Networks in fragments: what they keep, what their heads make of it, what training needs, and what they refuse."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from hpcvideo.models import create_model
from hpcvideo.models.progressive_state import State
from hpcvideo.models.temporal_convolution import InflatedBottleneck
from tests.models.progressive_nets import NETS, clips_of, equal, in_fragments, make, placed
from tests.models.progressive_reference import convolve, norm, resnet_map, slowfast_maps

pytestmark = pytest.mark.usefixtures("one_thread")


def test_lean_state_is_kept_in_front_of_temporal_convolutions_alone():
    clips = clips_of(4)
    lean, every = (make("progressive_slowonly_resnet26", width=8, state=place) for place in ("lean", "every_block"))
    (_, lean_state), (_, every_state) = lean.fragment(clips, State()), every.fragment(clips, State())
    assert list(lean_state) == [f"layer{layer}.{index}.conv1" for layer in (3, 4) for index in (0, 1)]
    assert list(every_state) == [f"layer{layer}.{index}" for layer in range(1, 5) for index in (0, 1)]
    i3d = make("progressive_i3d_resnet26_3x3x3", width=8, head_state="cached")
    names = list(i3d.fragment(clips, State())[1])
    assert names == ["conv1", *(f"layer{layer}.{index}.conv2" for layer in range(1, 5) for index in (0, 1)), "head"]


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


@pytest.mark.parametrize(("name", "options"), placed([NETS[1], NETS[3], NETS[4], NETS[5]]))
def test_fragments_train_in_bf16(name, options):
    model = make(name, **options, head_state="running").float()
    clips = clips_of(16).float()
    exact, _ = in_fragments(model, clips, [8, 8])
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = in_fragments(model, clips, [8, 8])
    logits.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert {tensor.dtype for key, tensor in state.items() if key.startswith("head")} == {torch.float32}
    assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()


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
        kept = {name.split(".")[0]: tensor.shape[2] for name, tensor in state.items() if ".layer1." in name}
        assert kept == ({"slow": 1, "fast": 4} if "slowfast" in name else {})
