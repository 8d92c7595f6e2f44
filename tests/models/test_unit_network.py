"""Networks of units: skips in words, what an output sees, layers, and the frame-by-frame reading."""

from __future__ import annotations

import pytest
import torch

from hpcvideo.errors import InputError
from hpcvideo.models import create_model
from hpcvideo.models.unit_skips import Skip, parse_skips

UNITS = ["conv1", "conv2", "conv3", "conv4", "head"]


def test_skips_are_read_as_they_are_said() -> None:
    assert parse_skips("none", UNITS) == ()
    assert parse_skips("over 1 by concat", UNITS) == (
        Skip("conv1", "conv3", "concat"), Skip("conv2", "conv4", "concat"), Skip("conv3", "head", "concat"),
    )  # fmt: skip
    said = ["conv2 to head by projection", "frames to conv2", "conv1 to conv4 by add"]
    assert parse_skips(said, UNITS) == (
        Skip("frames", "conv2", "add"), Skip("conv1", "conv4", "add"), Skip("conv2", "head", "projection"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("all", "expected none, `over N"),
        ("over 4", "room for skips over 1 to 3"),
        (["conv1 -> conv3"], "is no `SOURCE to TARGET"),
        (["conv1 to conv2"], "past at least one unit"),
        (["conv4 to conv2"], "past at least one unit"),
        (["conv1 to conv9"], "no unit conv9"),
        (["conv1 to conv3 by hand"], "hand is no way to join"),
        (["conv1 to conv3", "conv1 to conv3 by concat"], "comes twice"),
    ],
)
def test_skips_that_make_no_sense_are_refused(words: str | list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_skips(words, UNITS)


NETWORKS = [
    ("unit_vgg", {"width": 4, "skips": ["conv1 to conv3 by add", "conv2 to dense1 by concat", "conv4 to head"]}),
    ("unit_resnet18", {"width": 8, "skips": "over 1 by projection", "norm": "group"}),
    ("unit_resnet50", {"width": 8, "skips": "none"}),
    ("unit_tsm_resnet18", {"width": 32, "cut": "blocks"}),
    ("unit_tsm_resnet50", {"width": 8, "skips": ["stem to layer3 by concat"]}),
]


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_layers_in_sequence_are_the_forward(name: str, options: dict[str, object]) -> None:
    model = create_model(name, 5, 20, **options).eval()
    clips = torch.randn(2, 20, 3, 32, 32)
    features = clips
    for _, layer in model.layers():
        features = layer(features)
    assert torch.equal(features, model(clips))
    assert features.shape == (2, 5)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_every_output_depends_on_the_frames_of_its_path_lengths_alone(name: str, options: dict[str, object]) -> None:
    frames = 20
    torch.manual_seed(0)
    model = create_model(name, 5, frames, **options).double().eval()
    with torch.no_grad():
        model.unit("head").body.fc.weight.normal_()
    clips = torch.randn(1, frames, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    lengths = {"frames": {1}}
    for unit, inlets in model.inlets.items():
        lengths[unit] = {length + inlet.delay for inlet in inlets for length in lengths[inlet.source]}
    outputs = model.outputs(clips)
    assert outputs.shape[1] == frames - (max(lengths["head"]) - min(lengths["head"]))
    for place in (0, outputs.shape[1] - 1):
        (gradient,) = torch.autograd.grad(outputs[0, place].square().sum(), clips, retain_graph=True)
        seen = {frame + 1 for frame in range(frames) if gradient[0, frame].any()}
        step = max(lengths["head"]) + place
        assert seen == {step - length + 1 for length in lengths["head"]}


def test_a_shift_takes_a_fold_of_the_frame_before() -> None:
    """With one unit between stem and head the first fold comes from the step before, as in causal TSM."""
    model = create_model("unit_tsm_resnet18", 5, 20, width=8, cut="layers").eval()
    stem, layer = model.unit("stem"), model.unit("layer1")
    frames = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        features = stem(frames)
        ours = layer(features[2:], features[1:2])
        moved = features[2:].clone()
        moved[:, :1] = features[1:2, :1]
        first, second = layer.body
        out = first.conv1(moved)
        out = first.bn2(first.conv2(first.relu(first.bn1(out))))
        expected = second(torch.relu(out + features[2:]))
    torch.testing.assert_close(ours, expected)


def test_frame_by_frame_it_is_an_ordinary_network_whose_skips_stay_within_a_frame() -> None:
    torch.manual_seed(0)
    model = create_model("unit_vgg", 5, 6, width=4, skips=["conv1 to conv3 by concat"]).double().eval()
    clips = torch.randn(2, 6, 3, 32, 32, dtype=torch.float64)
    alone = [model.frame_outputs(clips[:, [frame] * 6])[:, 0] for frame in range(6)]
    torch.testing.assert_close(model.frame_outputs(clips), torch.stack(alone, 1))
    still = clips[:, :1].expand(-1, 6, -1, -1, -1)
    torch.testing.assert_close(model.outputs(still)[:, 0], model.frame_outputs(still)[:, 0])
    with pytest.raises(InputError, match="also read the frame before"):
        create_model("unit_tsm_resnet18", 5, 6, width=8).frame_outputs(torch.randn(1, 6, 3, 32, 32))


def test_a_clip_too_short_for_one_output_is_refused_with_the_least_that_works() -> None:
    model = create_model("unit_vgg", 5, 3, width=4, skips=["frames to head"])
    with pytest.raises(InputError, match=r"joins 8 frames in a row; use model\.frames=8 or more"):
        model.outputs(torch.randn(1, 3, 3, 32, 32))
