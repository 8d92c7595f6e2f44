"""R(2+1)D against its forward written out from the names that torchvision gives to its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hpcvideo.models import create_model, load_weights
from hpcvideo.models.r2plus1d import as_kinetics, middle_channels
from hpcvideo.models.snippet_network import SnippetNetwork


def written_out(state: dict[str, Tensor], clips: Tensor, blocks: tuple[int, ...], eps: float) -> Tensor:
    """Logits in evaluation mode; every layer by torch's functions and its name in a torchvision checkpoint."""

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, gamma, beta = (state[f"{name}.{of}"] for of in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, mean, var, gamma, beta, eps=eps)

    def split(name: str, x: Tensor, stride: int) -> Tensor:
        x = functional.conv3d(x, state[f"{name}.0.weight"], stride=(1, stride, stride), padding=(0, 1, 1))
        x = functional.relu(norm(f"{name}.1", x))
        return functional.conv3d(x, state[f"{name}.3.weight"], stride=(stride, 1, 1), padding=(1, 0, 0))

    x = functional.conv3d(clips.transpose(1, 2), state["stem.0.weight"], stride=(1, 2, 2), padding=(0, 3, 3))
    x = functional.conv3d(functional.relu(norm("stem.1", x)), state["stem.3.weight"], padding=(1, 0, 0))
    x = functional.relu(norm("stem.4", x))
    for layer, count in enumerate(blocks, start=1):
        for index in range(count):
            name, stride = f"layer{layer}.{index}", 2 if layer > 1 and index == 0 else 1
            y = functional.relu(norm(f"{name}.conv1.1", split(f"{name}.conv1.0", x, stride)))
            y = norm(f"{name}.conv2.1", split(f"{name}.conv2.0", y, 1))
            if f"{name}.downsample.0.weight" in state:
                x = norm(f"{name}.downsample.1", functional.conv3d(x, state[f"{name}.downsample.0.weight"], stride=stride))
            x = functional.relu(x + y)
    return functional.linear(x.mean(dim=(2, 3, 4)), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize(("depth", "blocks", "eps"), [(18, (2, 2, 2, 2), 1e-5), (34, (3, 4, 6, 3), 1e-3)])
def test_the_network_is_the_written_out_one(depth: int, blocks: tuple[int, ...], eps: float) -> None:
    torch.manual_seed(0)
    model = create_model(f"r2plus1d_{depth}", 7, 4, width=8).double().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(1e-3, 2)  # small ones, so that eps counts
            elif tensor.ndim == 1 and tensor.is_floating_point():
                tensor.uniform_(-0.5, 1)
        model.fc.weight.normal_()
        clips = torch.randn(2, 4, 3, 20, 24, dtype=torch.float64)
        expected = written_out(model.state_dict(), as_kinetics(clips), blocks, eps)
        torch.testing.assert_close(model(clips), expected, rtol=1e-9, atol=1e-9)


def test_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        small, large = create_model("r2plus1d_18", 400, 16), create_model("r2plus1d_34", 400, 16)
    assert sum(parameter.numel() for parameter in small.parameters()) == 31_505_325  # torchvision's table
    assert middle_channels(64, 64) == 144 and middle_channels(64, 128) == 230 and middle_channels(128, 128) == 288
    shapes = {name: tuple(tensor.shape) for name, tensor in large.state_dict().items()}
    assert shapes["layer2.0.conv1.0.0.weight"] == (230, 64, 1, 3, 3)
    assert shapes["layer2.0.conv2.0.0.weight"] == (288, 128, 1, 3, 3)  # counted anew for each convolution
    assert dict(small.state_dict())["layer2.0.conv2.0.0.weight"].shape[0] == 230
    assert shapes["stem.3.weight"] == (64, 45, 3, 1, 1)


def test_pixels_become_those_of_kinetics() -> None:
    grey = torch.full((1, 1, 3, 1, 1), 0.5)
    ours = (grey - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    theirs = (grey - torch.tensor([0.43216, 0.394666, 0.37645]).view(3, 1, 1)) / torch.tensor(
        [0.22803, 0.22145, 0.216989]
    ).view(3, 1, 1)
    torch.testing.assert_close(as_kinetics(ours), theirs)


@pytest.mark.parametrize("prefix", ["", "features.", "module.features."])
def test_weights_of_tsp_fit_an_encoder(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(1)
    source = create_model("r2plus1d_34", 5, 4, width=8).state_dict()
    heads = {"fc1.weight": torch.zeros(200, 64), "fc2.weight": torch.zeros(2, 128)}
    state = {f"{prefix}{name}": tensor for name, tensor in source.items() if not name.startswith("fc.")} | heads
    torch.save({"model": state, "epoch": 5}, tmp_path / "tsp.pth")
    model = create_model(
        "snippet_classifier", 3, 8, snippets=2, encoder="r2plus1d_34", encoder_options={"width": 8}, frozen_stages=2
    )
    assert isinstance(model, SnippetNetwork)
    told = load_weights(model.encoder.network, tmp_path / "tsp.pth", new_head=True)
    assert set(told.unused) == {"fc1.weight", "fc2.weight"}
    for name, tensor in model.encoder.network.state_dict().items():
        assert torch.equal(tensor, source[name]), name
    learning = [name for name, parameter in model.encoder.named_parameters() if parameter.requires_grad]
    trained = {name.split(".")[1] for name in learning}
    assert trained == {"layer3", "layer4"}
