"""MobileNetV2 against a second, functional writing of it, and against torchvision's parameter count."""

import pytest
import torch
import torch.nn.functional as F

from hpcvideo.models import TemporalShift, create_model

GROUPS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def test_parameter_count_and_names_are_torchvisions():
    with torch.device("meta"):
        model = create_model("tsm_mobilenetv2", 1000, 8)
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_504_872
    names = set(model.state_dict())
    assert {
        "features.0.0.weight", "features.1.conv.0.0.weight", "features.1.conv.1.weight", "features.1.conv.2.running_var",
        "features.2.conv.0.0.weight", "features.2.conv.1.1.bias", "features.17.conv.2.weight", "features.18.1.weight",
        "fc.weight",
    } <= names  # fmt: skip


def test_the_ten_blocks_of_the_published_online_demo_are_shifted():
    with torch.device("meta"):
        model = create_model("tsm_mobilenetv2", 5, 8)
    shifted = {int(name.split(".")[1]) for name, module in model.named_modules() if isinstance(module, TemporalShift)}
    assert shifted == {index + 1 for index in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15)}  # tsm.md 2.1 counts blocks from 0


def shift(x, frames, causal):
    fold = x.shape[1] // 8
    clips = x.reshape(-1, frames, *x.shape[1:])
    out = clips.clone()
    if causal:
        out[:, 1:, :fold], out[:, 0, :fold] = clips[:, :-1, :fold], 0
    else:
        out[:, :-1, :fold], out[:, -1, :fold] = clips[:, 1:, :fold], 0
        out[:, 1:, fold : 2 * fold], out[:, 0, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold], 0
    return out.reshape(x.shape)


def written_out(state, clips, frames, shifts, causal=False):
    def bn(x, name):
        return F.batch_norm(x, *(state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")))

    x = F.conv2d(clips.flatten(0, 1), state["features.0.0.weight"], stride=2, padding=1)
    x = F.relu6(bn(x, "features.0.1"))
    index = 0
    for expansion, _, count, first_stride in GROUPS:
        for repeat in range(count):
            index += 1
            stride = 1 if repeat else first_stride
            name = f"features.{index}.conv"
            y, place = x, 0
            if expansion > 1:
                if repeat and shifts:
                    y = shift(y, frames, causal)
                y = F.relu6(bn(F.conv2d(y, state[f"{name}.0.0.weight"]), f"{name}.0.1"))
                place = 1
            depthwise = state[f"{name}.{place}.0.weight"]
            y = F.conv2d(y, depthwise, stride=stride, padding=1, groups=len(depthwise))
            y = F.relu6(bn(y, f"{name}.{place}.1"))
            y = bn(F.conv2d(y, state[f"{name}.{place + 1}.weight"]), f"{name}.{place + 2}")
            x = x + y if repeat else y
    x = F.relu6(bn(F.conv2d(x, state["features.18.0.weight"]), "features.18.1"))
    logits = F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])
    return logits.reshape(-1, frames, logits.shape[1]).mean(1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tsn_mobilenetv2", {}),
        ("tsm_mobilenetv2", {}),
        ("tsm_mobilenetv2", {"channels_last": True}),
        ("tsm_mobilenetv2", {"causal": True, "channels_last": True}),
    ],
)
def test_logits_and_gradients_equal_the_written_out_network(name, options):
    torch.manual_seed(4)
    model = create_model(name, 5, 3, width=16, **options).double().eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if "running_mean" in key or key.endswith("bias"):
                value.normal_(0, 0.1)
            elif "running_var" in key:
                value.uniform_(0.2, 0.4)
        model.fc.weight.normal_(0, 0.1)
    clips = torch.randn(2, 3, 3, 64, 64, dtype=torch.float64)
    learned = {key for key, _ in model.named_parameters()}
    state = {key: value.clone().requires_grad_(key in learned) for key, value in model.state_dict().items()}
    reference = written_out(state, clips, 3, name.startswith("tsm"), options.get("causal", False))
    logits = model(clips)
    assert logits.abs().max() > 0.05
    torch.testing.assert_close(logits, reference, rtol=1e-9, atol=1e-10)
    logits.square().sum().backward()
    reference.square().sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, state[key].grad, rtol=1e-7, atol=1e-9)
