"""What `create_model` takes, and how it says no."""

import pytest
import torch

from hpcvideo.errors import InputError
from hpcvideo.models import create_model, known_models, model_options


def test_every_known_model_can_be_made_and_says_its_frames():
    assert {f"{family}_resnet{depth}" for family in ("tsn", "tsm") for depth in (18, 34, 50, 101)} <= set(known_models())
    for name in known_models():
        with torch.device("meta"):
            model = create_model(name, 7, 4)
        assert model.frames == 4
    depths = (50, 101)
    others = {f"i3d_resnet{depth}{kernel}" for depth in depths for kernel in ("", "_3x3x3")} | {
        "slowonly_resnet50", "slowonly_resnet101", "tsm_mobilenetv2", "tsn_mobilenetv2",
    }  # fmt: skip
    assert others <= set(known_models())


def test_options_have_the_published_defaults():
    assert model_options("tsm_resnet50") == {
        "shift_fraction": 8,
        "shift_place": "blockres",
        "causal": False,
        "temporal_pool": False,
        "zero_gamma": False,
        "dropout": 0.5,
        "width": 64,
        "channels_last": False,
    }
    everywhere = {"zero_gamma", "dropout", "width", "channels_last"}
    assert set(model_options("tsn_resnet50")) == everywhere | {"temporal_pool"}
    assert set(model_options("tsm_mobilenetv2")) == everywhere | {"shift_fraction", "causal"}
    i3d = everywhere | {"inflated_blocks", "stem_taps", "temporal_stride", "causal"}
    assert set(model_options("i3d_resnet50")) == set(model_options("i3d_resnet50_3x3x3")) == i3d
    assert set(model_options("slowonly_resnet50")) == everywhere | {"causal"}


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"no model 'tsm_resnet19'.*tsm_resnet18, tsm_resnet34"):
        create_model("tsm_resnet19", 5, 8)


def test_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"no option 'shift_div'; it has: shift_fraction, shift_place, causal"):
        create_model("tsm_resnet18", 5, 8, shift_div=8)
    with pytest.raises(InputError, match=r"tsn_resnet18 has no option 'shift_fraction'"):
        create_model("tsn_resnet18", 5, 8, shift_fraction=8)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"shift_fraction": 1}, "shift_fraction = 1"),
        ({"shift_fraction": 32, "width": 16}, "shift_fraction = 32"),
        ({"shift_fraction": 8.0}, "shift_fraction = 8.0"),
        ({"shift_place": "res"}, "shift_place = 'res'"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"dropout": "0.5"}, "dropout = '0.5'"),
        ({"width": 0}, "width = 0"),
        ({"width": True}, "width = True"),
        ({"causal": 1}, "causal = 1"),
        ({"channels_last": "yes"}, "channels_last = 'yes'"),
        ({"causal": True, "temporal_pool": True}, "causal = True with temporal_pool"),
    ],
)
def test_values_out_of_range_are_refused(options, what):
    with pytest.raises(InputError, match=what):
        create_model("tsm_resnet18", 5, 8, **options)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"temporal_stride": 3}, "temporal_stride = 3: expected one of 1, 2, 4, 8"),
        ({"inflated_blocks": "some"}, "inflated_blocks = 'some'"),
        ({"stem_taps": 4}, "stem_taps = 4"),
        ({"causal": True, "temporal_stride": 2}, "causal = True with a temporal_stride"),
    ],
)
def test_values_of_3d_nets_out_of_range_are_refused(options, what):
    with pytest.raises(InputError, match=what):
        create_model("i3d_resnet50", 5, 8, **options)


def test_a_temporal_pool_needs_an_even_number_of_frames():
    with pytest.raises(InputError, match="temporal_pool = True with 5 frames"):
        create_model("tsm_resnet18", 5, 5, temporal_pool=True)


@pytest.mark.parametrize(("classes", "frames", "what"), [(0, 8, "num_classes = 0"), (5, 0, "frames = 0")])
def test_counts_out_of_range_are_refused(classes, frames, what):
    with pytest.raises(InputError, match=what):
        create_model("tsm_resnet18", classes, frames)
