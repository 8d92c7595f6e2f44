"""Roles against the groups of the public TSM code, counted by hand."""

from collections import Counter

import pytest
import torch

from hpcvideo.models import create_model, known_models, parameter_roles


def test_tsm_resnet50_has_the_tensors_of_the_public_groups():
    with torch.device("meta"):
        roles = parameter_roles(create_model("tsm_resnet50", 400, 8))
    # 53 convolutions, 106 of batch norm, 2 of the classifier: tsm.md section 2.5
    assert Counter(roles.values()) == {"weight": 53, "normalisation": 106, "head_weight": 1, "head_bias": 1}
    assert roles["fc.weight"] == "head_weight"
    assert roles["layer1.0.downsample.1.weight"] == "normalisation"
    assert roles["layer1.0.downsample.0.weight"] == "weight"


@pytest.mark.parametrize("name", known_models())
def test_every_parameter_has_one_role_in_the_models_order(name):
    with torch.device("meta"):
        model = create_model(name, 7, 4)
    roles = parameter_roles(model)
    assert list(roles) == [parameter for parameter, _ in model.named_parameters()]
    one_axis = {parameter for parameter, value in model.named_parameters() if value.ndim == 1}
    assert {parameter for parameter, role in roles.items() if role in ("normalisation", "bias", "head_bias")} == one_axis


def test_a_plain_bias_is_a_bias():
    assert parameter_roles(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)))["0.bias"] == "bias"
