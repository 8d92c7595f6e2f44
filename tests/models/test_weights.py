"""Weights under other programs' names. The foreign names are written out by hand here, from reference facts, not derived."""

import re

import pytest
import torch

from hpcvideo.errors import InputError
from hpcvideo.models import create_model, load_weights


def random_state(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value.clone()
        for name, value in model.state_dict().items()
    }


def resnet(name="tsm_resnet50", classes=5, frames=4, **options):
    return create_model(name, classes, frames, width=8, **options)


def public_names(state, shifted=True, place="blockres", pooled=False, every=1):
    """tsm.md section 2.6: module.base_model.*, .net in what the shift or the pool wraps, new_fc."""
    named = {}
    for name, value in state.items():
        if name.startswith("fc."):
            named["module.new_fc." + name[3:]] = value
            continue
        if (block := re.match(r"(layer\d)\.(\d+)\.", name)) and shifted and int(block[2]) % every == 0:
            if place == "block":
                name = name.replace(block[0], block[0] + "net.")
            elif name == block[0] + "conv1.weight":
                name = block[0] + "conv1.net.weight"
        if pooled and name.startswith("layer2."):
            name = "layer2.net." + name[len("layer2.") :]
        named["module.base_model." + name] = value
    return named


def mmaction2_names(state):
    named = {"data_preprocessor.mean": torch.zeros(3, 1, 1)}
    for name, value in state.items():
        parts = name.split(".")
        leaf = ".".join(parts[-2:])
        head = ".".join(parts[:-2])
        if parts[0] == "fc":
            named["cls_head.fc_cls." + parts[1]] = value
        elif "downsample" in parts:
            kind = {"0": "conv", "1": "bn"}[parts[-2]]
            named[f"backbone.{head}.{kind}.{parts[-1]}"] = value
        elif parts[-2].startswith("bn"):
            prefix = f"backbone.{head}." if head else "backbone."
            named[f"{prefix}conv{parts[-2][2:]}.bn.{parts[-1]}"] = value
        else:
            prefix = f"backbone.{head}." if head else "backbone."
            net = "net." if head and leaf == "conv1.weight" else ""
            named[f"{prefix}{parts[-2]}.conv.{net}weight"] = value
    return named


def assert_loaded(model, state):
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("depth", [18, 50])
def test_names_of_torchvision(depth):
    state = random_state(resnet(f"tsm_resnet{depth}"))
    model = resnet(f"tsm_resnet{depth}")
    report = load_weights(model, state)
    assert_loaded(model, state)
    assert (report.style, report.loaded, report.unused, report.notes) == ("torchvision", len(state), (), ())


def test_checkpoints_before_running_counters_load():
    model = resnet()
    state = random_state(model)
    load_weights(model, {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")})
    assert torch.equal(model.bn1.weight, state["bn1.weight"])


@pytest.mark.parametrize(
    ("options", "how"),
    [({}, {}), ({"shift_place": "block"}, {"place": "block"}), ({"temporal_pool": True}, {"pooled": True})],
)
def test_names_of_the_public_code(options, how):
    model = resnet(**options)
    state = random_state(model)
    names = public_names(state, **how)
    expected_name = {
        (): "module.base_model.layer2.0.conv1.net.weight",
        ("place",): "module.base_model.layer2.0.net.conv1.weight",
        ("pooled",): "module.base_model.layer2.net.0.conv1.net.weight",
    }[tuple(how)]
    assert expected_name in names
    report = load_weights(model, names)
    assert_loaded(model, state)
    assert (report.style, report.unused, report.notes) == ("tsm", (), ())


def test_resnet101_of_the_public_code_has_every_second_block_marked():
    model = resnet("tsm_resnet101")
    state = random_state(model)
    load_weights(model, public_names(state, every=2))
    assert_loaded(model, state)
    with pytest.raises(InputError, match=r"33 blocks are shifted \(blockres\), but 18 are in the model"):
        load_weights(model, public_names(state))


def test_names_of_mmaction2():
    model = resnet()
    state = random_state(model)
    names = mmaction2_names(state)
    assert {"backbone.layer1.0.conv1.conv.net.weight", "backbone.conv1.bn.running_var", "cls_head.fc_cls.bias"} <= set(names)
    report = load_weights(model, names)
    assert_loaded(model, state)
    assert report.unused == ("data_preprocessor.mean",)
    assert "1 not used: data_preprocessor.mean" in str(report)


MIT_MOBILENET = {  # the public code's flat sequence of a block -> torchvision's nested one
    "1.conv.0.weight": "1.conv.0.0.weight",
    "1.conv.1.running_mean": "1.conv.0.1.running_mean",
    "1.conv.3.weight": "1.conv.1.weight",
    "1.conv.4.bias": "1.conv.2.bias",
    "2.conv.0.weight": "2.conv.0.0.weight",
    "3.conv.0.net.weight": "3.conv.0.0.weight",
    "3.conv.1.weight": "3.conv.0.1.weight",
    "3.conv.3.weight": "3.conv.1.0.weight",
    "3.conv.4.running_var": "3.conv.1.1.running_var",
    "3.conv.6.weight": "3.conv.2.weight",
    "3.conv.7.weight": "3.conv.3.weight",
    "18.0.weight": "18.0.weight",
}


def flat_mobilenet_names(state):
    shifted = (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)
    named = {}
    for name, value in state.items():
        if found := re.match(r"features\.(\d+)\.conv\.(.*)\.(\w+)$", name):
            index, place, leaf = int(found[1]), found[2], found[3]
            flat = {"0.0": "0", "0.1": "1", "1": "3", "2": "4"} if index == 1 else {
                "0.0": "0", "0.1": "1", "1.0": "3", "1.1": "4", "2": "6", "3": "7"}  # fmt: skip
            net = ".net" if index in shifted and place == "0.0" else ""
            name = f"features.{index}.conv.{flat[place]}{net}.{leaf}"
        named["module.new_fc." + name[3:] if name.startswith("fc.") else "module.base_model." + name] = value
    return named


def test_mobilenet_of_the_public_code_and_of_torchvision():
    model = create_model("tsm_mobilenetv2", 5, 4, width=8)
    state = random_state(model)
    names = flat_mobilenet_names(state)
    for foreign, ours in MIT_MOBILENET.items():
        assert names[f"module.base_model.features.{foreign}"] is state[f"features.{ours}"]
    report = load_weights(model, names)
    assert_loaded(model, state)
    assert (report.style, report.unused, report.notes) == ("tsm", (), ())
    other = create_model("tsm_mobilenetv2", 5, 4, width=8)
    load_weights(other, {name.replace("fc.", "classifier.1."): value for name, value in state.items()})
    assert_loaded(other, state)


@pytest.mark.parametrize("name", ["i3d_resnet50", "i3d_resnet50_3x3x3", "slowonly_resnet50"])
def test_image_weights_are_inflated_so_that_a_still_video_looks_like_the_image(name):
    image = resnet("tsn_resnet50", frames=1).eval()
    state = random_state(image)
    for key in state:
        if "running_var" in key:
            state[key] = state[key].abs() + 0.5
    model = resnet(name, frames=9).eval()
    report = load_weights(model, state)
    assert len(report.inflated) == 53, "every convolution is 3D here, with one tap or more"
    for key, value in model.state_dict().items():
        if value.ndim == 5:
            torch.testing.assert_close(value.sum(2), state[key])
            assert all(torch.equal(value[:, :, tap], value[:, :, 0]) for tap in range(value.shape[2]))
    load_weights(image, state)
    still = torch.randn(1, 1, 3, 32, 32)
    video = model.conv1(still.expand(-1, 9, -1, -1, -1).transpose(1, 2))
    torch.testing.assert_close(video[:, :, 4], image.conv1(still[:, 0]), rtol=1e-4, atol=1e-4)


def test_3d_weights_under_mmaction2_names_are_taken_as_they_are():
    model = resnet("slowonly_resnet50")
    state = random_state(model)
    report = load_weights(model, {key.replace(".net.", "."): value for key, value in mmaction2_names(state).items()})
    assert_loaded(model, state)
    assert report.inflated == ()


@pytest.mark.parametrize("classes", [5, 7])
def test_a_new_head_stays_as_it_was_made(classes):
    model = resnet(classes=classes)
    head = model.fc.weight.detach().clone()
    state = random_state(resnet(classes=5))
    report = load_weights(model, public_names(state), new_head=True)
    assert torch.equal(model.fc.weight, head)
    assert torch.equal(model.conv1.weight, state["conv1.weight"])
    assert set(report.unused) == {"module.new_fc.weight", "module.new_fc.bias"}
    assert "the classifier is new" in str(report)


def test_another_number_of_classes_is_refused_with_the_way_out_and_nothing_changes():
    model = resnet(classes=7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"module\.new_fc\.weight is \[5, 256\] instead of \[7, 256\].*new_head=True"):
        load_weights(model, public_names(random_state(resnet(classes=5))))
    assert_loaded(model, before)


@pytest.mark.parametrize("new_head", [False, True])
def test_missing_and_misshaped_weights_are_refused_and_nothing_changes(new_head):
    model = resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = random_state(model)
    del state["layer4.2.bn3.running_var"]
    state["layer1.0.conv2.weight"] = torch.zeros(8, 8, 1, 1)
    with pytest.raises(InputError, match=r"conv2\.weight is \[8, 8, 1, 1\].*layer4\.2\.bn3\.running_var is missing"):
        load_weights(model, state, new_head)
    assert_loaded(model, before)


def test_a_backbone_without_classifier_needs_a_new_head():
    model = resnet()
    state = {name: value for name, value in random_state(model).items() if not name.startswith("fc.")}
    with pytest.raises(InputError, match=r"fc\.weight is missing.*new_head=True"):
        load_weights(model, state)
    load_weights(model, state, new_head=True)


def test_values_that_are_not_finite_are_refused():
    model = resnet()
    state = random_state(model)
    state["layer2.0.conv1.weight"][0, 0] = float("nan")
    with pytest.raises(InputError, match=r"layer2\.0\.conv1\.weight has values that are not finite"):
        load_weights(model, state)


def test_weights_of_another_shift_are_refused():
    state = random_state(resnet())
    for model, what in (
        (resnet(shift_place="block"), r"16 blocks are shifted \(blockres\), but 16 are in the model \(block\)"),
        (resnet("tsn_resnet50"), r"16 blocks are shifted \(blockres\), but 0 are in the model"),
        (resnet(temporal_pool=True), "made with no temporal pool, but the model has one"),
    ):
        with pytest.raises(InputError, match=what):
            load_weights(model, public_names(state))


def test_weights_trained_without_shift_or_with_both_ways_are_said_to_be_so():
    state = random_state(resnet())
    notes = load_weights(resnet(), public_names(state, shifted=False)).notes
    assert notes == ("trained without the shift that the model has",)
    notes = load_weights(resnet(causal=True), public_names(state)).notes
    assert len(notes) == 1
    assert "looks only back" in notes[0]


def test_non_local_blocks_and_names_of_one_meaning_are_refused():
    state = public_names(random_state(resnet()))
    with pytest.raises(InputError, match="non-local"):
        load_weights(resnet(), state | {"module.base_model.layer2.0.nl.g.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"both mean layer1\.0\.conv1\.weight"):
        load_weights(resnet(), state | {"module.base_model.layer1.0.conv1.weight": torch.zeros(1)})
