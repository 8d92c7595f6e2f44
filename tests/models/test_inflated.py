"""3D networks against 2D convolutions summed over taps, and against published parameter counts."""

import pytest
import torch
import torch.nn.functional as F

from hpcvideo.models import create_model
from hpcvideo.models.temporal_convolution import InflatedBottleneck, TemporalConvolution

# Derived: TSM-R50's 24,327,632 at 400 classes, plus two more taps for each inflated kernel (conv1: 4,329,472 weights in
# all blocks, 1,839,104 in every second; conv2: 11,317,248) and four more for the stem's 9,408. The public model zoos
# give 28.0 (I3D) and 32.5 million (Slow) (tsm.md section 3.3).
COUNTS = [
    ("i3d_resnet50", {}, 24_327_632 + 2 * 4_329_472 + 4 * 9_408),
    ("i3d_resnet50_3x3x3", {}, 24_327_632 + 2 * 11_317_248 + 4 * 9_408),
    ("i3d_resnet50", {"inflated_blocks": "alternate"}, 24_327_632 + 2 * 1_839_104 + 4 * 9_408),
    ("i3d_resnet50", {"stem_taps": 1}, 24_327_632 + 2 * 4_329_472),
    ("slowonly_resnet50", {}, 24_327_632 + 2 * (1_441_792 + 2_621_440)),
]


@pytest.mark.parametrize(("name", "options", "expected"), COUNTS)
def test_parameter_counts(name, options, expected):
    with torch.device("meta"):
        model = create_model(name, 400, 8, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_counts_round_to_those_of_the_public_zoos():
    assert f"{COUNTS[2][2] / 1e6:.1f}" == "28.0"
    assert f"{COUNTS[4][2] / 1e6:.1f}" == "32.5"


@pytest.mark.parametrize("frame_stride", [1, 2])
@pytest.mark.parametrize(("taps", "before", "after"), [(1, None, None), (3, None, None), (3, 2, 0), (5, 0, 1), (3, 0, 0)])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 2)])
def test_a_temporal_convolution_is_a_sum_of_image_convolutions(taps, before, after, size, stride, frame_stride):
    torch.manual_seed(0)
    module = TemporalConvolution(
        4, 3, size, taps=taps, stride=stride, frame_stride=frame_stride, before=before, after=after
    ).double()
    clips = torch.randn(2, 4, 6, 5, 6, dtype=torch.float64)
    before, after = (taps // 2 if side is None else side for side in (before, after))
    out = module(clips)
    expected = []
    for start in range(-before, 6 + after - taps + 1, frame_stride):
        total = torch.zeros(())
        for tap in range(taps):
            if 0 <= start + tap < 6:
                weight = module.weight[:, :, tap]
                total = total + F.conv2d(clips[:, :, start + tap], weight, stride=stride, padding=size // 2)
        expected.append(total)
    torch.testing.assert_close(out, torch.stack(expected, 2), rtol=1e-12, atol=1e-12)


def written_out(state, clips, taps_of, stem_taps):
    """Eval-mode logits with every temporal kernel as a sum over taps of 2D convolutions."""

    def convolve(x, name, stride=1):
        weight = state[f"{name}.weight"]
        taps, pad = weight.shape[2], weight.shape[-1] // 2
        frames = x.shape[2]
        padded = F.pad(x, (0, 0, 0, 0, taps // 2, taps // 2))
        out = 0
        for tap in range(taps):
            images = padded[:, :, tap : tap + frames].transpose(1, 2).flatten(0, 1)
            out = out + F.conv2d(images, weight[:, :, tap], stride=stride, padding=pad)
        return out.unflatten(0, (-1, frames)).transpose(1, 2)

    def bn(x, name):
        return F.batch_norm(x, *(state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")))

    assert state["conv1.weight"].shape[2] == stem_taps
    x = F.relu(bn(convolve(clips.transpose(1, 2), "conv1", 2), "bn1"))
    x = torch.stack([F.max_pool2d(x[:, :, frame], 3, 2, 1) for frame in range(x.shape[2])], 2)
    for layer, count in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for index in range(count):
            name, stride = f"layer{layer}.{index}", 2 if layer > 1 and index == 0 else 1
            shapes = tuple(state[f"{name}.conv{number}.weight"].shape[2] for number in (1, 2, 3))
            assert shapes == taps_of(layer, index), name
            y = F.relu(bn(convolve(x, f"{name}.conv1"), f"{name}.bn1"))
            y = F.relu(bn(convolve(y, f"{name}.conv2", stride), f"{name}.bn2"))
            y = bn(convolve(y, f"{name}.conv3"), f"{name}.bn3")
            if f"{name}.downsample.0.weight" in state:
                x = bn(convolve(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = F.relu(x + y)
    return F.linear(x.mean((2, 3, 4)), state["fc.weight"], state["fc.bias"])


def every_second(layer, index):
    published = {1: (0, 1, 2), 2: (0, 2), 3: (0, 2, 4), 4: (1,)}
    return (3 if index in published[layer] else 1, 1, 1)


@pytest.mark.parametrize(
    ("name", "options", "taps_of", "stem_taps"),
    [
        ("i3d_resnet50", {}, lambda layer, index: (3, 1, 1), 5),
        ("i3d_resnet50_3x3x3", {"stem_taps": 3}, lambda layer, index: (1, 3, 1), 3),
        ("i3d_resnet50", {"inflated_blocks": "alternate"}, every_second, 5),
        ("slowonly_resnet50", {"channels_last": True}, lambda layer, index: (3 if layer > 2 else 1, 1, 1), 1),
    ],
)
def test_logits_and_gradients_equal_the_written_out_network(name, options, taps_of, stem_taps):
    torch.manual_seed(5)
    model = create_model(name, 5, 3, width=8, **options).double().eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if "running_mean" in key or key.endswith("bias"):
                value.normal_(0, 0.2)
            elif "running_var" in key:
                value.uniform_(0.5, 1.5)
        model.fc.weight.normal_(0, 0.1)
    clips = torch.randn(2, 3, 3, 40, 32, dtype=torch.float64)
    learned = {key for key, _ in model.named_parameters()}
    state = {key: value.clone().requires_grad_(key in learned) for key, value in model.state_dict().items()}
    reference, logits = written_out(state, clips, taps_of, stem_taps), model(clips)
    torch.testing.assert_close(logits, reference, rtol=1e-9, atol=1e-9)
    logits.square().sum().backward()
    reference.square().sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, state[key].grad, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    ("temporal_stride", "left"), [(1, [16, 16, 16]), (2, [16, 16, 8]), (4, [16, 8, 4]), (8, [8, 4, 2])]
)
def test_temporal_strides_leave_the_frames_they_say(temporal_stride, left):
    with torch.device("meta"):
        model = create_model("i3d_resnet50", 5, 16, temporal_stride=temporal_stride)
        frames = [model.conv1(torch.empty(1, 3, 16, 32, 32)).shape[2]]
        features = torch.empty(1, 16, 3, 32, 32)
        for name, layer in model.layers()[:-1]:
            features = layer(features)
            if name in ("stem", "layer4.2"):
                frames.append(features.shape[2])
    assert frames == left


@pytest.mark.parametrize("name", ["i3d_resnet50", "i3d_resnet50_3x3x3", "slowonly_resnet50"])
def test_a_causal_net_does_not_look_ahead_and_the_other_does(name):
    torch.manual_seed(0)
    clips = torch.randn(1, 6, 3, 32, 32)
    changed = clips.clone()
    changed[:, 4:] += 1
    for causal in (True, False):
        model = create_model(name, 5, 6, width=8, causal=causal).eval()
        outs = []
        for given in (clips, changed):
            features = given
            for _, layer in model.layers()[:-1]:
                features = layer(features)
            outs.append(features[:, :, :4])
        assert torch.equal(outs[0], outs[1]) is causal


def test_a_block_takes_its_taps_as_options():
    block = InflatedBottleneck(8, 4, 2, first_taps=3, second_taps=5, causal=True)
    assert (block.conv1.before, block.conv1.after) == (2, 0)
    assert (block.conv2.before, block.conv2.after) == (4, 0)
    assert block(torch.randn(1, 8, 4, 8, 8)).shape == (1, 16, 4, 4, 4)
