"""The networks against a second, functional writing of them, and against published parameter counts."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from hpcvideo.models import TemporalShift, create_model, known_models

# torchvision's documentation of its ResNets, 1000 classes; tsm.md section 2.5 for TSM-R50 at 400.
PUBLISHED_PARAMETERS = [
    ("tsn_resnet18", 1000, 11_689_512),
    ("tsm_resnet34", 1000, 21_797_672),
    ("tsn_resnet50", 1000, 25_557_032),
    ("tsm_resnet101", 1000, 44_549_160),
    ("tsm_resnet50", 400, 24_327_632),
    ("tsm_resnet50", 174, 23_864_558),
]


@pytest.mark.parametrize(("name", "classes", "published"), PUBLISHED_PARAMETERS)
def test_parameter_count_is_the_published_one(name, classes, published):
    with torch.device("meta"):
        model = create_model(name, classes, 8)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


def test_parameter_names_are_torchvisions():
    with torch.device("meta"):
        names = set(create_model("tsm_resnet50", 400, 8).state_dict())
    assert len([name for name in names if not name.startswith("fc") and name.endswith("weight")]) == 53 * 2
    for name in (
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv1.weight",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.num_batches_tracked",
        "layer3.5.bn3.bias",
        "layer4.2.conv3.weight",
        "fc.bias",
    ):
        assert name in names


def test_shift_costs_no_multiplication():
    # 32.70 GMAC for 8 frames of 224 pixels: tsm.md section 2.5
    counts = {}
    for name in ("tsn_resnet50", "tsm_resnet50"):
        with torch.device("meta"):
            model = create_model(name, 400, 8, channels_last=True)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 8, 3, 224, 224, device="meta"))
        counts[name] = counter.get_total_flops()
    assert counts["tsm_resnet50"] == counts["tsn_resnet50"]
    assert counts["tsm_resnet50"] / 2e9 == pytest.approx(32.70, abs=0.01)


def shifted(x, frames, divisor, causal=False):
    clips = x.reshape(-1, frames, *x.shape[1:])
    fold = x.shape[1] // divisor
    if causal:
        back = F.pad(clips[:, :-1, :fold], (0, 0, 0, 0, 0, 0, 1, 0))
        return torch.cat([back, clips[:, :, fold:]], 2).reshape(x.shape)
    ahead = F.pad(clips[:, 1:, :fold], (0, 0, 0, 0, 0, 0, 0, 1))
    back = F.pad(clips[:, :-1, fold : 2 * fold], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([ahead, back, clips[:, :, 2 * fold :]], 2).reshape(x.shape)


def written_out(state, clips, depth, frames, divisor, place, shifts, causal=False, pool=False):
    """Eval-mode logits by torch.nn.functional alone. shifts(layer, index): whether that block is shifted."""

    def bn(x, name):
        return F.batch_norm(x, *(state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")))

    def convolve(x, name, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = torch.cat(list(clips))
    x = F.max_pool2d(F.relu(bn(convolve(x, "conv1", 2), "bn1")), 3, 2, 1)
    for layer in (1, 2, 3, 4):
        if pool and layer == 2:
            clip = x.reshape(-1, frames, *x.shape[1:])
            triples = [range(max(0, t - 1), t + 2) for t in range(0, frames, 2)]
            x = torch.cat([torch.stack([c[list(three)].amax(0) for three in triples]) for c in clip])
            frames //= 2
        index = 0
        while f"layer{layer}.{index}.conv1.weight" in state:
            block = f"layer{layer}.{index}"
            stride = 2 if layer > 1 and index == 0 else 1
            read = shifted(x, frames, divisor, causal) if shifts(layer, index) else x
            identity = read if place == "block" else x
            if f"{block}.downsample.0.weight" in state:
                identity = bn(convolve(identity, f"{block}.downsample.0", stride), f"{block}.downsample.1")
            if depth < 50:
                y = F.relu(bn(convolve(read, f"{block}.conv1", stride), f"{block}.bn1"))
                y = bn(convolve(y, f"{block}.conv2"), f"{block}.bn2")
            else:
                y = F.relu(bn(convolve(read, f"{block}.conv1"), f"{block}.bn1"))
                y = F.relu(bn(convolve(y, f"{block}.conv2", stride), f"{block}.bn2"))
                y = bn(convolve(y, f"{block}.conv3"), f"{block}.bn3")
            x = F.relu(y + identity)
            index += 1
    logits = F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    return torch.stack([logits[start : start + frames].mean(0) for start in range(0, len(logits), frames)])


def model_with_random_state(name, frames=3, **options):
    torch.manual_seed(5)
    model = create_model(name, 5, frames, width=8, **options).double().eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if "running_mean" in key or key.endswith("bias"):
                value.normal_(0, 0.2)
            elif "running_var" in key or (value.ndim == 1 and key.endswith("weight")):
                value.uniform_(0.5, 1.5)
        model.fc.weight.normal_(0, 0.1)
    return model


@pytest.mark.parametrize(
    ("name", "options", "shifts"),
    [
        ("tsn_resnet18", {}, lambda layer, index: False),
        ("tsm_resnet18", {}, lambda layer, index: True),
        ("tsm_resnet18", {"shift_place": "block", "shift_fraction": 4}, lambda layer, index: True),
        ("tsm_resnet34", {"shift_fraction": 3}, lambda layer, index: True),
        ("tsm_resnet50", {}, lambda layer, index: True),
        ("tsm_resnet50", {"shift_place": "block"}, lambda layer, index: True),
        ("tsm_resnet101", {}, lambda layer, index: index % 2 == 0),
        ("tsm_resnet101", {"shift_place": "block"}, lambda layer, index: True),
        ("tsm_resnet50", {"channels_last": True}, lambda layer, index: True),
        ("tsm_resnet18", {"channels_last": True, "shift_place": "block"}, lambda layer, index: True),
        ("tsm_resnet50", {"causal": True, "channels_last": True}, lambda layer, index: True),
        ("tsm_resnet18", {"causal": True}, lambda layer, index: True),
        ("tsm_resnet50", {"temporal_pool": True, "channels_last": True}, lambda layer, index: True),
        ("tsn_resnet18", {"temporal_pool": True}, lambda layer, index: False),
    ],
)
def test_logits_and_gradients_equal_the_written_out_network(name, options, shifts):
    frames = 4 if "temporal_pool" in options else 3
    model = model_with_random_state(name, frames, **options)
    clips = torch.randn(2, frames, 3, 40, 32, dtype=torch.float64)
    learned = {key for key, _ in model.named_parameters()}
    reference_state = {key: value.clone().requires_grad_(key in learned) for key, value in model.state_dict().items()}
    place, divisor = options.get("shift_place", "blockres"), options.get("shift_fraction", 8)
    causal, pool = options.get("causal", False), options.get("temporal_pool", False)
    reference = written_out(reference_state, clips, int(name[10:]), frames, divisor, place, shifts, causal, pool)
    logits = model(clips)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(logits, reference, rtol=1e-10, atol=1e-10)

    logits.square().sum().backward()
    reference.square().sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, reference_state[key].grad, rtol=1e-8, atol=1e-9)


def test_the_two_places_differ():
    clips = torch.randn(1, 3, 3, 32, 32, dtype=torch.float64)
    residual, block = (model_with_random_state("tsm_resnet18", shift_place=place) for place in ("blockres", "block"))
    assert not torch.allclose(residual(clips), block(clips), atol=1e-4)


def test_resnet101_shifts_every_second_block():
    with torch.device("meta"):
        model = create_model("tsm_resnet101", 5, 8)
    shifted_blocks = {name.removesuffix(".shift") for name, module in model.named_modules()
                      if isinstance(module, TemporalShift)}  # fmt: skip
    blocks = {name for name, _ in model.layers()} - {"stem", "head"}
    assert shifted_blocks == {name for name in blocks if int(name.split(".")[1]) % 2 == 0}
    assert len(blocks) == 33
    assert len(shifted_blocks) == 2 + 2 + 12 + 2


LAYERED = [
    ("tsn_resnet18", {}),
    ("tsm_resnet50", {"temporal_pool": True}),
    ("tsm_resnet50", {"channels_last": True}),
    ("tsm_mobilenetv2", {}),
    ("i3d_resnet50", {"temporal_stride": 2}),
    ("slowonly_resnet50", {"channels_last": True}),
]


@pytest.mark.parametrize(("name", "options"), LAYERED)
@pytest.mark.parametrize("training", [False, True])
def test_layers_in_sequence_are_the_forward_bit_by_bit(name, options, training):
    model = create_model(name, 5, 4, width=8, **options).train(training)
    clips = torch.randn(2, 4, 3, 32, 32)
    layers = model.layers()
    assert layers[0][0] == "stem"
    assert layers[-1][0] == "head"
    torch.manual_seed(1)
    whole = model(clips)
    torch.manual_seed(1)
    activations = clips
    for _, layer in layers:
        activations = layer(activations)
    assert torch.equal(whole, activations)


@pytest.mark.parametrize("name", known_models())
def test_every_tensor_of_a_model_belongs_to_one_layer(name):
    options = {"temporal_pool": True} if name == "tsm_resnet50" else {}
    with torch.device("meta"):
        model = create_model(name, 5, 4, **options)
    owned = model.layer_modules()
    assert list(owned) == [layer for layer, _ in model.layers()]
    prefixes = [prefix for modules in owned.values() for prefix in modules]
    for tensor in model.state_dict():
        assert sum(tensor.startswith(f"{prefix}.") for prefix in prefixes) == 1, tensor
    for prefix in prefixes:
        assert any(tensor.startswith(f"{prefix}.") for tensor in model.state_dict()), prefix


def test_order_of_frames_matters_to_tsm_and_not_to_tsn():
    clips = torch.randn(2, 4, 3, 32, 32, dtype=torch.float64)
    backwards = clips.flip(1)
    frame_only = model_with_random_state("tsn_resnet18", 4)
    torch.testing.assert_close(frame_only(clips), frame_only(backwards), rtol=1e-12, atol=1e-12)
    shifting = model_with_random_state("tsm_resnet18", 4)
    assert (shifting(clips) - shifting(backwards)).abs().max() > 1e-3


def test_clips_of_a_batch_do_not_mix():
    model = model_with_random_state("tsm_resnet18", 3)
    clips = torch.randn(2, 3, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(model(clips)[1:], model(clips[1:]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tsm_resnet50", {"channels_last": True}),
        ("tsm_resnet18", {"temporal_pool": True, "shift_place": "block"}),
        ("tsm_mobilenetv2", {"causal": True, "channels_last": True}),
    ],
)
def test_the_whole_model_compiles_without_graph_breaks(name, options):
    torch._dynamo.reset()
    model = create_model(name, 5, 2, width=8, **options).eval()
    clips = torch.randn(1, 2, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(clips), model(clips))
    compiled(clips).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model(clips).sum().backward()
    torch.testing.assert_close(gradients, [parameter.grad for parameter in model.parameters()])


@pytest.mark.parametrize("name", ["tsm_resnet50", "tsn_resnet18", "tsm_mobilenetv2"])
def test_channels_last_holds_for_every_activation(name):
    model = create_model(name, 5, 2, width=16, channels_last=True)
    activations = torch.randn(1, 2, 3, 64, 64)
    for _, layer in model.layers()[:-1]:
        activations = layer(activations)
        assert activations.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["tsm_resnet18", "tsm_resnet50", "tsm_mobilenetv2", "i3d_resnet50"])
def test_with_zero_gamma_every_residual_block_starts_as_its_identity(name):
    model = create_model(name, 5, 2, width=16, zero_gamma=True).train()
    features = torch.randn(1, 2, 3, 64, 64)
    seen = 0
    for layer_name, layer in model.layers()[:-1]:
        out = layer(features)
        narrows = name == "tsm_mobilenetv2" and not getattr(layer, "has_identity", False)
        if layer_name != "stem" and not narrows:
            projection = getattr(layer, "downsample", None)
            identity = features if projection is None else projection(features)
            torch.testing.assert_close(out, identity if name == "tsm_mobilenetv2" else identity.relu())
            seen += 1
        features = out
    assert seen == {"tsm_resnet18": 8, "tsm_resnet50": 16, "tsm_mobilenetv2": 10, "i3d_resnet50": 16}[name]


@pytest.mark.parametrize("shape", [(2, 5, 3, 32, 32), (2, 4, 1, 32, 32), (8, 3, 32, 32)])
def test_clips_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="4 frames, 3, height, width"):
        create_model("tsn_resnet18", 5, 4, width=8)(torch.zeros(shape))


def test_head_starts_small_and_without_bias():
    model = create_model("tsm_resnet50", 400, 8)
    assert model.fc.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert not model.fc.bias.any()
