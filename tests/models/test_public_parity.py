"""Equal weights, equal logits and equal gradients to the public TSM implementation, re-derived here from its description.

The reference reads a state dict with the public names and uses plain functional calls; its shift is a loop over rows and
channels. It shares no code with hpcvideo. (Run once beside the public code itself, with torchvision's ResNet: logits
and all gradients of ResNet-50, both places and the temporal pool, and ResNet-101 were equal to the last bit.)
"""

import pytest
import torch
import torch.nn.functional as F

from hpcvideo.models import create_model, load_weights

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def shift(x, frames, divisor):
    """Channels [0, fold) take the next frame's value, [fold, 2 fold) the one before's, zero outside the clip."""
    fold = x.shape[1] // divisor
    columns = []
    for channel in range(x.shape[1]):
        column = x[:, channel]
        if channel < 2 * fold:
            rows = []
            for row in range(len(x)):
                source = row + 1 if channel < fold else row - 1
                same_clip = 0 <= source < len(x) and source // frames == row // frames
                rows.append(column[source] if same_clip else torch.zeros_like(column[0]))
            column = torch.stack(rows)
        columns.append(column)
    return torch.stack(columns, 1)


def norm(state, name, x):
    return F.batch_norm(
        x, state[f"{name}.running_mean"], state[f"{name}.running_var"], state[f"{name}.weight"], state[f"{name}.bias"]
    )


def bottleneck(state, name, x, stride, frames, divisor, shifted):
    wrapped = f"{name}.conv1.net.weight" if shifted else f"{name}.conv1.weight"
    read = shift(x, frames, divisor) if shifted else x
    out = F.relu(norm(state, f"{name}.bn1", F.conv2d(read, state[wrapped])))
    out = F.relu(norm(state, f"{name}.bn2", F.conv2d(out, state[f"{name}.conv2.weight"], stride=stride, padding=1)))
    out = norm(state, f"{name}.bn3", F.conv2d(out, state[f"{name}.conv3.weight"]))
    if f"{name}.downsample.0.weight" in state:
        x = norm(state, f"{name}.downsample.1", F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride))
    return F.relu(out + x)


def public_network(state, clips, depth, divisor=8):
    batch, frames = clips.shape[:2]
    base = "module.base_model"
    x = F.conv2d(clips.flatten(0, 1), state[f"{base}.conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(norm(state, f"{base}.bn1", x)), 3, stride=2, padding=1)
    every = 2 if BLOCKS[depth][2] >= 23 else 1
    for layer, count in enumerate(BLOCKS[depth], start=1):
        for index in range(count):
            stride = 2 if layer > 1 and index == 0 else 1
            x = bottleneck(state, f"{base}.layer{layer}.{index}", x, stride, frames, divisor, index % every == 0)
    features = F.adaptive_avg_pool2d(x, 1).flatten(1)
    logits = F.linear(features, state["module.new_fc.weight"], state["module.new_fc.bias"])
    return logits.view(batch, frames, -1).mean(1)


def public_state(depth, classes, width, dtype):
    """Random weights under the public names, with statistics that keep the activations' size from layer to layer."""
    generator = torch.Generator().manual_seed(7)
    state = {}

    def convolution(name, out, into, kernel):
        scale = (2 / (into * kernel**2)) ** 0.5
        state[name] = torch.randn(out, into, kernel, kernel, generator=generator) * scale

    def normalisation(name, channels, gamma):
        state[f"{name}.weight"] = gamma * (0.75 + torch.rand(channels, generator=generator) / 2)
        state[f"{name}.bias"] = torch.randn(channels, generator=generator) / 10
        state[f"{name}.running_mean"] = torch.randn(channels, generator=generator) / 10
        state[f"{name}.running_var"] = 0.75 + torch.rand(channels, generator=generator) / 2

    base = "module.base_model"
    convolution(f"{base}.conv1.weight", width, 3, 7)
    normalisation(f"{base}.bn1", width, 1.0)
    into, every = width, 2 if BLOCKS[depth][2] >= 23 else 1
    for layer, count in enumerate(BLOCKS[depth], start=1):
        channels = width * 2 ** (layer - 1)
        for index in range(count):
            name = f"{base}.layer{layer}.{index}"
            convolution(f"{name}.conv1.{'net.' if index % every == 0 else ''}weight", channels, into, 1)
            convolution(f"{name}.conv2.weight", channels, channels, 3)
            convolution(f"{name}.conv3.weight", 4 * channels, channels, 1)
            normalisation(f"{name}.bn1", channels, 1.0)
            normalisation(f"{name}.bn2", channels, 1.0)
            normalisation(f"{name}.bn3", 4 * channels, 0.2)
            if index == 0:
                convolution(f"{name}.downsample.0.weight", 4 * channels, into, 1)
                normalisation(f"{name}.downsample.1", 4 * channels, 0.7)
            into = 4 * channels
    state["module.new_fc.weight"] = torch.randn(classes, into, generator=generator) / into**0.5
    state["module.new_fc.bias"] = torch.randn(classes, generator=generator) / 10
    return {name: value.to(dtype) for name, value in state.items()}


def our_name(public):
    name = public.removeprefix("module.").removeprefix("base_model.").replace(".net.", ".")
    return name.replace("new_fc", "fc")


def compare(depth, classes, frames, size, width, dtype, options):
    torch.manual_seed(3)
    state = public_state(depth, classes, width, dtype)
    model = create_model(f"tsm_resnet{depth}", classes, frames, width=width, **options).to(dtype).eval()
    load_weights(model, state)
    learned = [name for name in state if "running" not in name]
    for name in learned:
        state[name].requires_grad_()
    clips = torch.randn(1, frames, 3, size, size, dtype=dtype)
    label = torch.tensor([1])
    expected, logits = public_network(state, clips, depth), model(clips)
    F.cross_entropy(expected, label).backward()
    F.cross_entropy(logits, label).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients.keys() == {our_name(name) for name in learned}
    norms = [(gradients[our_name(name)].norm(), state[name].grad.norm()) for name in learned]
    worst = max(float((ours - theirs).abs() / theirs) for ours, theirs in norms)
    difference = (logits - expected).detach().abs().max()
    return float(difference), float(expected.detach().abs().max()), worst


def test_tsm_resnet50_at_full_width_in_single_precision():
    difference, scale, worst_gradient = compare(50, 400, 8, 64, 64, torch.float32, {})
    assert scale > 0.5, "logits near zero would be equal whatever the network computes"
    assert difference < 1e-4
    assert worst_gradient < 1e-4


@pytest.mark.parametrize(("depth", "options"), [(50, {}), (50, {"channels_last": True}), (101, {})])
def test_small_networks_in_double_precision(depth, options):
    difference, scale, worst_gradient = compare(depth, 7, 4, 32, 16, torch.float64, options)
    assert scale > 0.1
    assert difference < 1e-9
    assert worst_gradient < 1e-9


def test_another_fold_divisor_is_another_network():
    _, scale, _ = compare(50, 7, 4, 32, 16, torch.float64, {})
    difference, _, _ = compare(50, 7, 4, 32, 16, torch.float64, {"shift_fraction": 4})
    assert difference > 1e-3 * scale
